// Package uring is the memory that an io_uring of Linux shares with a process:
// a queue of submissions, a queue of completions, and the call that moves both
// on. What is submitted, and who waits, is its users' affair.
//
// Where the kernel has no io_uring, or does not let this process have one, Open
// fails with ENOSYS or EPERM, and its users do without.
package uring
