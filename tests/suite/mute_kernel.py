"""A kernel that starts and does not answer: ``mute_kernel.py HOW FILE CONNECTION_FILE``.

HOW is ``start``, where nothing is answered, or ``cells``, where only kernel_info is, as when a
request is lost. FILE is written at the first start; where it exists already, the real kernel
starts. With an empty FILE every start is mute.
"""

import runpy
import sys
import time
from pathlib import Path

import zmq
from jupyter_client import BlockingKernelClient


def status(session, socket, state: str, request) -> None:
    session.send(socket, "status", {"execution_state": state}, parent=request)


def answer_kernel_info_only(connection_file: str) -> None:
    told = BlockingKernelClient(connection_file=connection_file)
    told.load_connection_file()
    context = zmq.Context()
    shell, iopub = context.socket(zmq.ROUTER), context.socket(zmq.PUB)
    for socket, port in ((shell, told.shell_port), (iopub, told.iopub_port)):
        socket.bind(f"tcp://127.0.0.1:{port}")
    while True:
        who, request = told.session.recv(shell, mode=0)
        if request["msg_type"] == "kernel_info_request":
            status(told.session, iopub, "busy", request)
            content = {"protocol_version": "5.3"}
            told.session.send(shell, "kernel_info_reply", content, parent=request, ident=who)
            status(told.session, iopub, "idle", request)


if __name__ == "__main__":
    how, file, connection_file = sys.argv[1:4]
    if file and Path(file).exists():
        sys.argv = ["ipykernel_launcher", "-f", connection_file]
        runpy.run_module("ipykernel_launcher", run_name="__main__")
        sys.exit()
    if file:
        Path(file).touch()
    if how == "start":
        time.sleep(600)
    answer_kernel_info_only(connection_file)
