"""The search for the settings that suit a machine and a pair: pure but for `live` and `journal`."""
