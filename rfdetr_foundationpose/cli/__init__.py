"""The command line: one module per sub-command, mounted lazily by ``cli.main``.

A module offers a plain function with a typer signature (``Annotated[..., typer.Option(...)]``); its ``module:function``
stands in the table of ``cli.main``, so that ``--help`` stays fast and a missing optional package breaks only its own
command. What several commands share is in ``options``, ``settings`` and ``console``.
"""
