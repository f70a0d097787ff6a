"""`python -m pixelcnn`: the command line."""

from pixelcnn.apps.cli.main import main

main()
