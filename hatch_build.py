"""What a wheel holds beside its packages."""

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# Names as common as these must not land at the top of a user's environment.
COMMANDS = ("training", "export")


class CommandsHook(BuildHookInterface):
    """Puts the commands into `iterconv`, in a wheel.

    An editable install must not have them: it would hold copies, and run those.
    """

    def initialize(self, version, build_data):
        if version == "standard":
            build_data["force_include"].update({name: f"iterconv/{name}" for name in COMMANDS})
