"""What `conflux bench` measures: this board alone, without a second machine.

    ciphers, codec, handshake        calls of this process
    start, memory                    processes of their own
    link      engine ◄─UDP, loopback─► engine
    tunnel    sockets ◄► TUN ◄► engine ◄─UDP─► engine ◄► TUN ◄► sockets      in network namespaces that end with it

A Recorder gets figures as they come (figure.py); report.py keeps and compares them, page.py shows them.
"""
