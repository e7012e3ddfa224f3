# %% [markdown]
# # TAP-CT Bench in Python
# A notebook as a script: editors run it cell by cell, `python docs/tutorial.py` runs all of it. It evaluates the small
# encoder that ships on the two scans that ship, looks at the record, and then uses the features themselves. Nothing is
# downloaded; a CPU core takes about a minute, and the second time seconds, for what is done is not done again.

# %%
import numpy as np
import torch

import tapct

RESULTS = "results/tutorial"

# %% [markdown]
# ## What there is
# Any of these names may stand below in place of `tap-t-3d` and `quickstart`. The published weights of an encoder are
# fetched once; the data of a task must lie under `data_root` (docs/tasks.md).

# %%
print(", ".join(tapct.list_encoders()))
print(", ".join(tapct.list_tasks()))

# %% [markdown]
# ## Evaluate
# The same engine as `tapct run -e tap-t-3d -t quickstart --results results/tutorial`, in a process of its own, and the
# same folder: what one has done, the other does not do again. Settings have the names of the task's config. One that
# does not exist is an error which names those that do.

# %%
record = tapct.evaluate("tap-t-3d", "quickstart", results=RESULTS, max_steps=30, n_runs=1)
print(f"{record.encoder.full_name} on {record.task.name}: Dice {record.runs[0].metrics['test']['dice_native']:.3f}")
print(record.notice)

try:
    tapct.evaluate("tap-t-3d", "quickstart", results=RESULTS, max_stepps=30)
except ValueError as error:
    print(str(error)[:80])

# %% [markdown]
# ## The record
# A table with a row for each case, class, seed and protocol (docs/results-format.md). `native` is scored on the scan's
# own grid, `paper` on the encoder's.

# %%
cases = record.to_frame()
print(cases.pivot_table(index="class", columns="protocol", values="dice", sort=False).round(3))

# %% [markdown]
# `tapct.load_results` has every record of a folder in one such table, `tapct.read_record` reads one file.

# %%
print(tapct.load_results(RESULTS).groupby(["encoder", "task"])["case"].nunique())

# %% [markdown]
# ## The features
# What the run has stored, as arrays. Maps are read where they are asked for: a task of a terabyte opens at once.

# %%
features = tapct.load_features("tap-t-3d", "quickstart")
for case in features:
    print(case.case, case.split, "map", case.map.shape, "embeddings of windows", case.embeddings.shape)

# %% [markdown]
# Each patch of a map has a place in the patient, and each voxel of the scan a label: here patches are labelled by the
# voxel at their centre. The affine of a grid takes an index to millimetres, its inverse goes back.


# %%
def patches_and_labels(case):
    """Returns the (N, C) features of the patches whose centres lie in the scan, and the (N,) labels there."""
    places = case.positions_mm.reshape(-1, 3)
    grid = case.scan_grid
    index = np.c_[places, np.ones(len(places))] @ np.linalg.inv(grid.affine).T
    voxel = np.rint(index[:, :3]).astype(int)
    inside = ((voxel >= 0) & (voxel < grid.shape)).all(axis=1)
    z, y, x = voxel[inside].T
    return case.map.reshape(len(case.map), -1).T[inside], case.target[z, y, x]


train, test = (next(case for case in features if case.split == split) for split in ("train", "test"))
patches, labels = patches_and_labels(train)
other_patches, other_labels = patches_and_labels(test)
print(len(patches), "patches of", train.case, "and", len(other_patches), "of", test.case)

# %% [markdown]
# ## A question without a probe
# Is the liver of one patient found in another, by nothing but the likeness of features? The mean feature of its patches
# in one scan (less the mean of all patches) is compared with each patch of the other.

# %%
liver = list(features.classes).index("liver")
prototype = patches[labels == liver].mean(axis=0) - patches.mean(axis=0)
centred = other_patches - other_patches.mean(axis=0)
likeness = centred @ prototype / (np.linalg.norm(centred, axis=1) * np.linalg.norm(prototype))
is_liver = other_labels == liver
nearest = np.argsort(-likeness)[: is_liver.sum()]
found, chance = is_liver[nearest].mean(), is_liver.mean()
print(f"of the {is_liver.sum()} patches most like it, {found:.0%} are liver; by chance {chance:.0%}")

# %% [markdown]
# ## One vector a case
# As the probes of classification see them, ready for scikit-learn: `features.vectors()` with `features.patients`, by
# which to split. And the encoder itself takes any windows in Hounsfield units.

# %%
print(features.vectors(pooling="mean").shape, features.patients)

encoder = tapct.load_encoder("tap-t-3d")
windows_hu = torch.randn(1, 1, *encoder.card.window_size) * 20 + 40
print(encoder(windows_hu).embedding.shape)

# %% [markdown]
# ## Read on
# The page of all results: `tapct leaderboard results/tutorial -o site`. Many encoders on many tasks: docs/sweeps.md. An
# encoder of your own, in one file: docs/add-an-encoder.md.
