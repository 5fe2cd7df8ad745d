"""`llamaspec profile`: look at profiles, make them, take them over from others and share them."""

import typer

from llamaspec.cli.profile import add, diff, new, share, shelf

app = typer.Typer(help="Profiles: list, show, check, make, compare and share them.", no_args_is_help=True)
app.command("list", epilog=shelf.LIST_EPILOG)(shelf.list_command)
app.command("ls", hidden=True)(shelf.list_command)  # as `llamaspec ls` lists models
app.command("show", epilog=shelf.SHOW_EPILOG)(shelf.show_command)
app.command("validate", epilog=shelf.VALIDATE_EPILOG)(shelf.validate_command)
app.command("schema", epilog=shelf.SCHEMA_EPILOG)(shelf.schema_command)
app.command("new", epilog=new.EPILOG)(new.new_command)
app.command("add", epilog=add.EPILOG)(add.add_command)
app.command("share", epilog=share.EPILOG)(share.share_command)
app.command("diff", epilog=diff.EPILOG)(diff.diff_command)
app.command("rm", epilog=shelf.RM_EPILOG)(shelf.rm_command)
