"""What tells one version of this app from another: change these two, deploy, and watch the page."""

VERSION = "1.0.0"
COLOUR = "#0a7ea4"
