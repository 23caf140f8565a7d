"""Turn the GGUF file named on the command line into OpenVINO's form, in the same folder.

Run as a program of its own, because it reads a stranger's weights with native code: a crash is an
exit code here, and its memory is given back. Imports nothing of Intramuros.
"""

import sys


def main(path: str) -> None:
    import openvino_genai

    openvino_genai.LLMPipeline(path, "CPU", enable_save_ov_model=True)


if __name__ == "__main__":
    main(sys.argv[1])
