"""Requests to MLflow's model server, read so that no title can fail the others.

MLflow's server makes tables of pandas of all that it gets, which fails for text that is not UTF-8, for
empty lists and for CSV without types, and answers some errors with stack traces or by closing the
connection. A model cannot bring its own server, but it is loaded in the server's process.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import os
from email.message import Message
from itertools import islice
from typing import Any

import fastapi
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from mlflow.pyfunc.scoring_server import InvocationsResponse

from titles.listings.names import canonical
from titles.listings.rows import Broken
from titles.serve.guard import MOST_BYTES, Guard, allowed

_CSV, _JSON, _PARQUET = scoring_server.CONTENT_TYPES
_FORMS = ("inputs", "instances", "dataframe_split", "dataframe_records")
_LONGEST_MESSAGE = 500
MOST_TITLES = 100_000  # in a request
MOST_CATEGORIES = 2_000_000  # in an answer, of all titles
_log = logging.getLogger(__name__)


def read_by_us() -> None:
    """Let MLflow's model server read requests by this module; no effect in other processes."""
    if scoring_server._SERVER_MODEL_PATH in os.environ:
        guarded(allowed([]))


def guarded(hosts: frozenset[str]) -> None:
    """Let the servers that MLflow makes in this process read requests by this module, behind a guard.

    Args:
        hosts: as `guard.allowed` returns them.
    """
    seconds = float(MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get())  # type: ignore[no-untyped-call]

    class Guarded(fastapi.FastAPI):
        def __init__(self) -> None:
            super().__init__(docs_url=None, redoc_url=None, openapi_url=None)

        def build_middleware_stack(self) -> Any:
            return Guard(super().build_middleware_stack(), hosts, seconds)

    scoring_server.invocations = answer
    # The server asks for this class once the model is loaded.
    fastapi.FastAPI = Guarded  # type: ignore[misc, assignment]


def application(model: Any, hosts: frozenset[str]) -> Any:
    """MLflow's server of a model as an ASGI application, see `guarded`."""
    guarded(hosts)
    return scoring_server.init(model)


def answer(
    data: bytes, content_type: str | None, model: Any, input_schema: object = None
) -> InvocationsResponse:
    """The response to a request, which never is an exception.

    Args:
        data: the body: JSON with titles in one of MLflow's four forms, CSV or Parquet.
        model: what MLflow loaded.
        input_schema: not used; MLflow passes it.
    """
    kind = _kind(content_type or "")
    if kind is None:
        return _refused(
            415,
            f"the content type is {content_type or 'missing'}: expected one of the content types "
            f"{_JSON}, {_CSV} (both in UTF-8), {_PARQUET}",
        )
    try:
        titles, params = _read(data, kind)
        if told := _too_many(titles, params):
            return _refused(413, told)
        found = model.predict(titles, params=params)
        body = json.dumps({"predictions": found.to_dict(orient="records")})
    except MlflowException as error:
        return _refused(400, error.message)
    except RecursionError:
        return _refused(400, "the JSON is nested too deeply")
    except pa.ArrowException as error:
        return _refused(400, f"the body is no Parquet: {error}")
    except (ValueError, TypeError, OverflowError) as error:
        return _refused(400, str(error))
    except Exception:
        _log.exception("a request failed")
        return _refused(500, "the server failed, see its messages")
    return InvocationsResponse(body, 200, _JSON)


def _too_many(titles: Any, params: dict[str, Any] | None) -> str:
    """Why the answer would be too large; "" if it is not."""
    count = len(titles) if isinstance(titles, list | pd.DataFrame) else 1
    k = (params or {}).get("k")
    if count > MOST_TITLES:
        return f"{count} titles: at most {MOST_TITLES} fit in a request"
    if count > 1 and isinstance(k, int | float) and k * count > MOST_CATEGORIES:
        return (
            f"k times the number of titles is more than {MOST_CATEGORIES}: send fewer titles at a time"
        )
    return ""


def _kind(content_type: str) -> str | None:
    """One of the content types that are read; None for others, and for text that is not UTF-8."""
    header = Message()
    header["content-type"] = content_type
    try:
        charset = codecs.lookup(header.get_content_charset("utf-8")).name
    except LookupError:
        return None
    kind = header.get_content_type()
    known = kind in (_JSON, _CSV, _PARQUET) and charset in ("utf-8", "ascii")
    return kind if known else None


def _refused(status: int, message: str) -> InvocationsResponse:
    line = " ".join(message.split()).encode("utf-8", "backslashreplace").decode()
    code = "INTERNAL_ERROR" if status == 500 else "BAD_REQUEST"
    body = {"error_code": code, "message": line[:_LONGEST_MESSAGE]}
    return InvocationsResponse(json.dumps(body), status, _JSON)


def _read(data: bytes, kind: str) -> tuple[Any, dict[str, Any] | None]:
    """Titles, in a form that `TitlesModel.predict` accepts, and parameters."""
    if kind == _PARQUET:
        return _of_parquet(data), None
    # Bytes that are not UTF-8 become lone surrogates: only their titles are not UTF-8.
    text = data.decode("utf-8-sig", "surrogateescape")
    if kind == _CSV:
        return _of_csv(text), None
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"the body is no JSON: {error}") from None
    except ValueError:  # Python's limit of digits
        raise ValueError("the JSON has a number of thousands of digits") from None
    forms = [form for form in _FORMS if form in found] if isinstance(found, dict) else []
    if len(forms) != 1:
        raise ValueError(f"expected a JSON dictionary with exactly one of {', '.join(_FORMS)}")
    (form,), params = forms, found.get("params")
    if params is not None and not isinstance(params, dict):
        raise ValueError('params is no dictionary: expected one such as {"k": 3}')
    content = found[form]
    if form == "dataframe_split":
        if not isinstance(content, dict) or not isinstance(content.get("data"), list):
            raise ValueError("dataframe_split is no dictionary with columns and data")
        return _table(content["data"], content.get("columns")), params
    if form == "dataframe_records":
        if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
            raise ValueError("dataframe_records is no list of dictionaries")
        return _table(content, None), params
    if content is None:
        raise ValueError(f"{form} is null: expected a list of titles")
    return content, params


def _of_parquet(data: bytes) -> pd.DataFrame:
    """A table of the first column. A small file can stand for far more text than fits in memory."""
    schema = pq.read_schema(io.BytesIO(data))
    name = next(iter(schema.names), None)
    if name is not None and pa.types.is_nested(schema.types[0]):
        raise ValueError(f"the first column, {name!r}, has no text in it")
    with pq.ParquetFile(io.BytesIO(data), read_dictionary=[name] if name else None) as file:
        count = file.metadata.num_rows
        if name is None or count > MOST_TITLES:
            return pd.DataFrame(index=range(count))
        chunks = file.read([name]).column(0).chunks
    titles: list[Any] = []
    for chunk in chunks:
        if pa.types.is_dictionary(chunk.type):
            values = chunk.dictionary.to_pylist()
            titles += [None if at is None else values[at] for at in chunk.indices.to_pylist()]
        else:
            titles += chunk.to_pylist()
    if sum(len(title) for title in titles if isinstance(title, str | bytes)) > 8 * MOST_BYTES:
        raise ValueError("the titles are too long: send fewer in a request")
    return pd.DataFrame({name: pd.Series(titles, dtype=object)})


def _table(rows: list[Any], columns: list[Any] | None) -> pd.DataFrame:
    if columns is not None:
        if not isinstance(columns, list) or any(isinstance(name, list | dict) for name in columns):
            raise ValueError("columns is no list of names")
        _check_once(columns)
    return pd.DataFrame(rows, columns=columns if rows or columns else ["title"], dtype=object)


def _check_once(names: list[Any]) -> None:
    """Raise ValueError if two columns may be the titles."""
    if names.count("title") > 1:
        raise ValueError("the column 'title' stands twice")


def _of_csv(text: str) -> pd.DataFrame:
    """A table of the first column of CSV. A row that is broken, or has another number of fields, costs
    its first line only."""
    lines = [*io.StringIO(text.lstrip("\r\n"), newline="")]
    rows: list[Any] = []
    at = 0
    while at < len(lines):
        reader, used = csv.reader(islice(lines, at, None), strict=True), 0
        try:
            for row in reader:
                rows.append(row)
                used = reader.line_num
        except csv.Error as error:
            rows.append(Broken("broken_csv", str(error)))
            used += 1
        at += used
    header, *rows = rows or [[]]
    if isinstance(header, Broken):
        raise ValueError(f"the first line is no CSV: {header.excerpt}")
    if not header:
        raise ValueError("the CSV is empty: expected a first line with the column 'title'")
    _check_once([canonical(name) for name in header])
    # An empty line is an empty title where there are no other columns.
    rows = [row or [""] for row in rows]
    other = Broken("wrong_number_of_fields", "")
    values: list[object] = [
        row if isinstance(row, Broken) else row[0] if len(row) == len(header) else other for row in rows
    ]
    return pd.DataFrame({canonical(header[0]): pd.Series(values, dtype=object)})
