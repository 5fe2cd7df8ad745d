"""Where a file that is known by its hash can be had."""

from llamaspec.hub.inventory import list_models
from llamaspec.hub.sources import ModelSource
from llamaspec.profiles.library import list_profiles


def published_source(sha256: str) -> ModelSource | None:
    """The source that a profile here names for these bytes, or their place in the hub's cache."""
    for profile in list_profiles():
        for source in (profile.main, profile.draft):
            if isinstance(source, ModelSource) and source.sha256 == sha256:
                return source
    for model in list_models():
        if model.repo is not None and model.sha256 == sha256:
            return ModelSource(
                repo=model.repo,
                file=model.name.removeprefix(f"{model.repo}/"),
                sha256=sha256,
                size=model.size,
            )
    return None
