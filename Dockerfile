# The networks of this commit behind `titles serve`: see docs/serving.md, "In a container".
FROM python:3.11-slim-bookworm AS build
WORKDIR /titles
COPY requirements.lock requirements-torch.txt requirements-uv.lock ./
# An index with builds of torch for CPUs; without it, those for accelerators take several gigabytes on x86-64.
ARG TORCH_INDEX=
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --require-hashes --requirement requirements-uv.lock \
 && /venv/bin/uv pip install --python /venv/bin/python --no-cache --no-deps --require-hashes \
    --requirement requirements.lock \
 && /venv/bin/pip install --no-cache-dir --no-compile ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} \
    --requirement requirements-torch.txt
COPY . .
# The remote `store` is a folder of the clone. What the server imports is compiled, and nothing else.
ENV DVC_NO_ANALYTICS=1 MLFLOW_DISABLE_TELEMETRY=true
RUN /venv/bin/dvc config core.no_scm true \
 && /venv/bin/dvc pull --quiet --remote store models/cnn models/mlp models/sets.json \
 && /venv/bin/pip install --no-cache-dir --no-build-isolation --no-deps . \
 && /venv/bin/python -m titles.cli predict --models models Funda \
 && /venv/bin/python -c "import titles.serve.http_requests, titles.serve.mlflow_model" \
 && /venv/bin/pip uninstall --yes uv

FROM python:3.11-slim-bookworm
RUN useradd --uid 1000 --create-home titles
COPY --from=build /venv /venv
COPY --from=build /titles/models /models
ENV PATH=/venv/bin:$PATH GIT_PYTHON_REFRESH=quiet MLFLOW_DISABLE_TELEMETRY=true
USER 1000
WORKDIR /home/titles
EXPOSE 5001
HEALTHCHECK --start-period=60s CMD ["python", "-c", \
  "from urllib.request import urlopen; urlopen('http://127.0.0.1:5001/ping')"]
ENTRYPOINT ["titles", "serve", "--models", "/models", "--host", "0.0.0.0"]
