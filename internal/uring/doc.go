// Package uring is the memory that an io_uring of Linux shares with a process: a queue
// of submissions, a queue of completions, and the system call that moves both on. Its
// users decide what is submitted, and which goroutine waits for it.
//
// If the kernel has no io_uring, or does not let this process have one, Open fails with
// ENOSYS or EPERM, and its users do without.
package uring
