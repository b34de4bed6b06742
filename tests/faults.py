"""Deliberate faults that tests have to notice: see mutants.py."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A fault: in `file`, `old`, which stands there once, becomes `new`.

    tests: what pytest is given, without the folder; a word after "-k" chooses among them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTANTS = [
    # -- the objective and the training
    Mutant(
        "the loss has the wrong sign",
        "src/titles/training/objective.py",
        "losses_B = (smoothing - 1) * log_right_B",
        "losses_B = (1 - smoothing) * log_right_B",
        "test_objective.py",
    ),
    Mutant(
        "the gradient forgets that targets are smoothed",
        "src/titles/training/objective.py",
        "(len(labels_B), 1), ctx.smoothing - 1)",
        "(len(labels_B), 1), -1.0)",
        "test_objective.py",
    ),
    Mutant(
        "logits are shifted the wrong way",
        "src/titles/training/objective.py",
        "logits_BC = logits_BC + self.shift_C",
        "logits_BC = logits_BC - self.shift_C",
        "test_objective.py",
    ),
    Mutant(
        "a batch's weights do not divide its loss",
        "src/titles/training/trainer.py",
        "loss = (losses_M * weight_M).sum() / weight",
        "loss = (losses_M * weight_M).sum() / len(labels_M)",
        "test_training.py",
    ),
    Mutant(
        "titles that are set aside teach all the same",
        "src/titles/training/trainer.py",
        "weight_M = weight_M * self._kept_N[",
        "weight_M = weight_M + 0 * self._kept_N[",
        "test_set_aside.py",
    ),
    Mutant(
        "a head sets other titles aside than the first",
        "src/titles/training/trainer.py",
        ".repeat(self._heads).to(weight_M)",
        ".repeat_interleave(self._heads).to(weight_M)",
        "test_set_aside.py",
    ),
    Mutant(
        "heads do not make up for the units that they lack",
        "src/titles/models/parts/network.py",
        "linear(self.heads * part, weight, self.bias)",
        "linear(part, weight, self.bias)",
        "test_heads.py",
    ),
    Mutant(
        "titles are judged by weights of categories twice",
        "src/titles/training/objective.py",
        "(shift_C - log_prior_C.float() - log_weight_C)",
        "(shift_C - log_prior_C.float() + log_weight_C)",
        "test_set_aside.py",
    ),
    Mutant(
        "an encoder's numbers outweigh those of counting",
        "src/titles/embed/encoder.py",
        "    _standardise(both_WK[:, dimension:], _WEIGHT)\n",
        "",
        "test_encoder.py",
    ),
    Mutant(
        "products are those of the library of the processor's maker",
        "src/titles/models/parts/products.py",
        "    operator = _onednn()\n",
        "    operator = None\n",
        "test_processor.py",
    ),
    Mutant(
        "parts of matrices are multiplied by slow code",
        "src/titles/models/parts/products.py",
        "        right_OI = right_OI.contiguous()",
        "        pass",
        "test_processor.py",
    ),
    Mutant(
        "a title alone is multiplied by other code",
        "src/titles/models/parts/products.py",
        "    if rows == 1:",
        "    if False:",
        "test_processor.py",
    ),
    Mutant(
        "a setting of the user is written over",
        "src/titles/data/processor.py",
        "        if given and environment[given] != value:",
        "        if False:",
        "test_processor.py",
    ),
    Mutant(
        "dropout stays on while a network is evaluated",
        "src/titles/models/parts/inference.py",
        "        model.eval()\n",
        "        model.train()\n",
        "test_training.py",
    ),
    Mutant(
        "word dropout can take all words of a title",
        "src/titles/training/trainer.py",
        "(chance_BL >= dropped) | (chance_BL == chance_BL.amax(dim=1, keepdim=True))",
        "chance_BL >= dropped",
        "test_training.py test_objective.py",
    ),
    Mutant(
        "a loss that is no number goes unnoticed",
        "src/titles/training/trainer.py",
        "if not torch.isfinite(total):",
        "if False:",
        "test_training.py",
    ),
    Mutant(
        "Adam by rows forgets that its first moments start at zero",
        "src/titles/training/optimisers.py",
        "rate / (1 - _BETA1**steps), 1 - _BETA2**steps",
        "rate, 1 - _BETA2**steps",
        "test_optimisers.py",
    ),
    Mutant(
        "the learning rate rises at the end",
        "src/titles/training/optimisers.py",
        "return (1 + math.cos(",
        "return (1 - math.cos(",
        "test_optimisers.py",
    ),
    Mutant(
        "the last epoch is saved, not the best",
        "src/titles/training/run.py",
        "better = best is None or _rank(record) > _rank(best)",
        "better = True",
        "test_experiment.py",
    ),
    # -- the networks
    Mutant(
        "padding counts in the mean of the MLP",
        "src/titles/models/mlp.py",
        "is_token_BL.sum(dim=1, keepdim=True).clamp(min=1)",
        "is_token_BL.shape[1]",
        "test_mlp.py test_models.py",
    ),
    Mutant(
        "windows that start on padding count in the CNN",
        "src/titles/models/parts/kernels.py",
        """        for word in range(len(place_L)):
            if place_L[word] == 0:
                continue
            sum_F""",
        """        for word in range(len(place_L)):
            sum_F""",
        "test_models.py test_layers.py",
    ),
    Mutant(
        "a gradient of windows goes to the next word",
        "src/titles/models/parts/kernels.py",
        "word = start_F[number] + within",
        "word = start_F[number] + within + 1",
        "test_layers.py",
    ),
    # -- the data
    Mutant(
        "a title may stand in train and in test",
        "src/titles/prepare/selection.py",
        "kept_N = split.first_of_each(rows.keys_N, rank_N)",
        "kept_N = np.arange(len(rows.keys_N))",
        "test_preparation.py",
    ),
    Mutant(
        "words of the test split are in the vocabulary",
        "src/titles/prepare/preparation.py",
        "_build_vocabulary(rows, splits_N == split.TRAIN, settings)",
        "_build_vocabulary(rows, splits_N != split.DROPPED, settings)",
        "test_preparation.py",
    ),
    Mutant(
        "the order of categories is that of a set",
        "src/titles/prepare/selection.py",
        "return sorted(rows.categories[code] for code in np.flatnonzero(rows_C >= min_rows))",
        "return list({rows.categories[code] for code in np.flatnonzero(rows_C >= min_rows)})",
        "test_preparation.py",
    ),
    Mutant(
        "the split follows from the place in the file",
        "src/titles/prepare/split.py",
        "shuffle_key_N = _shuffled(keys_N,",
        "shuffle_key_N = _shuffled(np.arange(len(keys_N)).astype(np.uint64),",
        "test_split.py",
    ),
    Mutant(
        "test rows are taken from unreliable ones first",
        "src/titles/prepare/split.py",
        "np.lexsort((shuffle_key_N, ~trusted_N, labels_N))",
        "np.lexsort((shuffle_key_N, trusted_N, labels_N))",
        "test_split.py",
    ),
    Mutant(
        "equally frequent words stand in the order in which they were met",
        "src/titles/data/vocabulary.py",
        "key=lambda i: (-counts_V[i], words[i])",
        "key=lambda i: -counts_V[i]",
        "test_vocabulary.py",
    ),
    Mutant(
        "accents stay where they are to go",
        "src/titles/prepare/text.py",
        'text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text).lower())',
        'text = unicodedata.normalize("NFKD", text).lower()',
        "test_text.py",
    ),
    Mutant(
        "a rejected row has the line of the row before",
        "src/titles/listings/csv_reader.py",
        "numbers.append(first + at)",
        "numbers.append(first + at - 1)",
        "test_sources.py",
    ),
    Mutant(
        "a damaged end of a file goes unnoticed",
        "src/titles/listings/rows.py",
        "except DAMAGE as error:\n            raise",
        "except DAMAGE as error:\n            return lines\n            raise",
        "test_sources.py",
    ),
    # -- measures
    Mutant(
        "balanced accuracy counts titles, not categories",
        "src/titles/data/outcomes.py",
        "return float(np.mean(right_C[rows_C > 0] / rows_C[rows_C > 0]))",
        "return float(right_C.sum() / rows_C.sum())",
        "test_metrics.py",
    ),
    Mutant(
        "intervals are too narrow for small categories",
        "src/titles/evaluation/metrics.py",
        "draws_S = np.maximum(rows_S - 1, 1)",
        "draws_S = rows_S",
        "test_metrics.py",
    ),
    Mutant(
        "a few titles that happen to be right prove a precision",
        "src/titles/evaluation/metrics.py",
        "enough = np.flatnonzero(wilson_low(found.right, found.kept) >= target)",
        "enough = np.flatnonzero(found.precision >= target)",
        "test_metrics.py",
    ),
    Mutant(
        "the temperature multiplies",
        "src/titles/models/parts/calibration.py",
        "values.div_(temperature)",
        "values.mul_(temperature)",
        "test_calibration.py",
    ),
    Mutant(
        "the worse network counts more in the average",
        "src/titles/models/parts/saved.py",
        "torch.tensor([1 / max(model.calibrated_loss, _LEAST_LOSS) for model in models])",
        "torch.tensor([max(model.calibrated_loss, _LEAST_LOSS) for model in models])",
        "test_saved.py test_predict.py",
    ),
    Mutant(
        "temperature and loss are of weights that are not saved",
        "src/titles/models/parts/calibration.py",
        "    model.round_as_saved()  # the output layer, which has new weights\n",
        "",
        "test_calibration.py",
    ),
    # -- what is kept
    Mutant(
        "a model is loaded although its titles are read otherwise now",
        "src/titles/models/parts/golden.py",
        "if was[part] != now[part]:",
        "if len(was[part]) != len(now[part]):",
        "test_golden.py",
    ),
    Mutant(
        "a resumed training forgets its optimisers",
        "src/titles/training/trainer.py",
        '            optimiser.load_state_dict(optimiser.state_dict() | {"state": states})\n',
        "",
        "test_checkpoints.py",
    ),
    Mutant(
        "a resumed training shuffles anew",
        "src/titles/training/trainer.py",
        '        self._shuffle.bit_generator.state = numbers["shuffle"]\n',
        "",
        "test_checkpoints.py",
    ),
    Mutant(
        "a training resumed within an epoch makes its steps again",
        "src/titles/training/trainer.py",
        '        self.step = numbers["step"]\n',
        "",
        "test_checkpoints.py",
    ),
    Mutant(
        "a damaged checkpoint is used",
        "src/titles/training/checkpoints.py",
        'if _checksum(tensors, metadata["numbers"]) != metadata["sha256"]:',
        "if False:",
        "test_checkpoints.py",
    ),
    Mutant(
        "a checkpoint of other settings is used",
        "src/titles/training/checkpoints.py",
        '        "settings": settings,\n',
        "",
        "test_checkpoints.py",
    ),
    Mutant(
        "an output has its name before it is on the disk",
        "src/titles/data/files.py",
        "    to_disk(partial)\n    _check_kind",
        "    _check_kind",
        "test_crashes.py test_files.py",
    ),
    Mutant(
        "a file that was not finished has its name",
        "src/titles/data/files.py",
        "        partial = place / path.name\n",
        "        partial = path\n",
        "test_crashes.py test_files.py test_predict_command.py",
    ),
    Mutant(
        "an interrupt between two renames loses a folder",
        "src/titles/data/files.py",
        "            old.replace(path)\n",
        "",
        "test_files.py",
    ),
    Mutant(
        "a file of the user's is taken for what a killed process left",
        "src/titles/data/scratch.py",
        "        if not match or found != _name(match[1], match[2]):\n",
        "        if not match:\n",
        "test_files.py",
    ),
    Mutant(
        "what another process is writing is removed",
        "src/titles/data/scratch.py",
        "            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n        except",
        "            pass\n        except",
        "test_files.py",
    ),
    # -- answers
    Mutant(
        "titles are answered in the order of their lengths",
        "src/titles/predict/classifier.py",
        "found.categories_NK[rows] = category_BK",
        "found.categories_NK[np.sort(rows)] = category_BK",
        "test_predict.py",
    ),
    Mutant(
        "a served title gets the answer of another",
        "src/titles/predict/classifier.py",
        "found.probabilities_NK[rows] = best_BK",
        "found.probabilities_NK[rows[::-1]] = best_BK",
        "test_predict.py test_mlflow_model.py",
    ),
    Mutant(
        "one threshold for categories of all sizes",
        "src/titles/evaluation/sets.py",
        "group_C[members] = group",
        "group_C[members] = 0",
        "test_sets.py",
    ),
    Mutant(
        "a threshold is one place too high",
        "src/titles/evaluation/sets.py",
        "return -(-(rows + 1) * round(level * 100) // 100)",
        "return (rows + 1) * round(level * 100) // 100",
        "test_sets.py",
    ),
    Mutant(
        "calibration takes the last row of a category from validation",
        "src/titles/prepare/split.py",
        "kept_C = np.maximum(1, rows_C",
        "kept_C = np.maximum(0, rows_C",
        "test_split.py",
    ),
    Mutant(
        "sets of other networks are taken",
        "src/titles/evaluation/sets.py",
        "if known[folder.name] != fingerprint(folder):",
        "if not known[folder.name]:",
        "test_sets.py",
    ),
    Mutant(
        "rows of a listing are numbered anew in each chunk",
        "src/titles/predict/bulk.py",
        "write(Predicted(rows + 1, chunk, found, told))",
        "write(Predicted(1, chunk, found, told))",
        "test_predict_command.py",
    ),
    Mutant(
        "category names are not escaped in a report",
        "src/titles/experiments/report/writing.py",
        "say, autoescape=True",
        "say, autoescape=False",
        "test_report.py",
    ),
    # -- text from outside, and caches
    Mutant(
        "what is printed can command a terminal",
        "src/titles/data/console.py",
        'text = before + printable(middle, kept="\\n\\t") + after',
        "text = before + middle + after",
        "test_messages.py",
    ),
    Mutant(
        "a bug is told as if it came from outside",
        "src/titles/data/messages.py",
        "if package in _OUTSIDE), None)",
        'if package in _OUTSIDE), "")',
        "test_messages.py",
    ),
    Mutant(
        "compiled code is loaded without a look at its hash",
        "src/titles/data/kernel_cache.py",
        "if digest == self._digest(content) else",
        "if digest else",
        "test_kernel_cache.py",
    ),
    Mutant(
        "compiled code is loaded from where others can write",
        "src/titles/data/kernel_cache.py",
        "and not found.st_mode & 0o022",
        "",
        "test_kernel_cache.py",
    ),
    # -- what dvc.lock says
    Mutant(
        "a stage does not notice that its inputs changed while it ran",
        "src/titles/data/inputs.py",
        "    if changed := _changes():\n",
        "    if (changed := _changes()) and not changed:\n",
        "test_inputs.py",
    ),
    Mutant(
        "a stage notes its inputs when its code is already loaded",
        "src/titles/stages/__init__.py",
        'if sys.argv[0] == "-m" and (',
        'if sys.argv[0] == "" and (',
        "test_inputs.py",
    ),
    Mutant(
        "a file that was changed and got its old time back is not read again",
        "src/titles/data/inputs.py",
        "found.st_mtime_ns, found.st_ctime_ns, found",
        "found.st_mtime_ns, found",
        "test_inputs.py",
    ),
    Mutant(
        "a candidate is worse as soon as its figure is below the margin",
        "src/titles/experiments/gate.py",
        "return self.high < -self.within",
        "return self.difference < -self.within",
        "test_gate.py",
    ),
    Mutant(
        "warnings of DVC are part of its answer",
        "src/titles/experiments/commands.py",
        "            stderr=err,\n",
        "            stderr=subprocess.STDOUT,\n",
        "test_older_versions.py -k warning",
    ),
    Mutant(
        "pairs on one split count as independent",
        "src/titles/experiments/seeds.py",
        "return summarise([*map(statistics.fmean, by_split.values())])",
        "return summarise([value for values in by_split.values() for value in values])",
        "test_seeds.py -k better",
    ),
    Mutant(
        "the split of an old experiment is not that of its seed",
        "src/titles/experiments/older.py",
        """f"{values['seed']}{BY_WORDS}" if "seed" in values else None""",
        "0",
        "test_older_versions.py",
    ),
    # -- the project
    Mutant(
        "a file that a stage imports is no dependency of it",
        "dvc.yaml",
        "      - src/titles/training\n      - src/titles/stages/train_cnn.py\n",
        "      - src/titles/stages/train_cnn.py\n",
        "test_project.py",
    ),
    Mutant(
        "a batch size that is given makes smaller batches",
        "src/titles/params.py",
        "return min(self.batch_size, rows)",
        "return max(1, min(self.batch_size, rows // 2))",
        "test_auto.py test_objective.py",
    ),
    Mutant(
        "a misspelt parameter is taken",
        "src/titles/params.py",
        'extra="forbid"',
        'extra="ignore"',
        "test_params.py",
    ),
    Mutant(
        "a password stands in a warning",
        "src/titles/tracking/mlflow.py",
        'text = text.replace(secret, "***")',
        "pass",
        "test_tracking.py -k conceal",
    ),
    Mutant(
        "an archive may write outside of its folder",
        "src/titles/datasets/archive.py",
        'if path.is_absolute() or ".." in path.parts:',
        "if False:",
        "test_download.py -k unsafe",
    ),
]
