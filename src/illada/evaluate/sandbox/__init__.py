"""Programs that a model wrote, each run in a process of its own that can harm nothing.

    source -> launcher.py in a new process -> limits, Landlock, seccomp -> exec -> Outcome

- no network, no other process: the system calls for it fail (seccomp), and so do those that change rights, limits,
  clocks or the kernel;
- files: the interpreter and its libraries can be read, the process's own empty folder can be written, and nothing else
  is there (Landlock); the folder is removed afterwards;
- time, memory, size of files and number of open files are limited (rlimits, and a clock outside);
- the environment is empty, standard input is closed, output goes nowhere.

Linux on x86-64 or arm64 with Landlock (kernel 5.13 or newer) is needed, but no privilege and no other program, so that
it works in containers and for every user. What it does not do: a program that studies the memory of its own process
could find out how to call itself right. The kernel has to be trusted, too: for programs that are meant to break out,
add a virtual machine around all of it.
"""

from illada.evaluate.sandbox.runner import Limits, Outcome, check_sandbox, run_program, run_programs

__all__ = ["Limits", "Outcome", "check_sandbox", "run_program", "run_programs"]
