"""An object that makes a folder when it is unpickled: a file that executes code, without harm."""

import os


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)
