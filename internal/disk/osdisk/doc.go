// Package osdisk is the real disk: a disk.FS over the host's file system, by
// direct system calls.
//
// It differs from package os in what the product rests on. A File is a
// descriptor of its own with no finalizer: nothing but Close ever closes it,
// and not before the last running call on it has returned, so that no call can
// reach another file that was given the same number. Calls allocate nothing
// unless they fail. Datasync is fdatasync. TryReadAt asks the kernel not to
// wait (preadv2 with RWF_NOWAIT).
//
// When several reads are under way, further ones are submitted in batches to an
// io_uring that the process shares (see ring), which costs less than a system
// call and a blocked thread for each. Where io_uring cannot be had they are
// preads, with the same results.
//
// EINTR reaches nobody. The Go runtime sends itself signals all the time; its
// handlers restart calls (SA_RESTART), but some calls of some file systems
// (network, FUSE) say EINTR all the same. Such a call has done nothing and
// reported nothing, so every call is made again, syncs too: only what a sync that
// ran to its end has reported must not be asked for twice. Those that go through
// package os are made again there. The exception is close(2), which on Linux has
// given the number back whatever it says: it is never made again, for another
// file may have the number by then.
//
// Errors are *fs.PathError (or *os.LinkError where there are two names) around
// the errno, so errors.Is(err, unix.ENOSPC) and errors.Is(err, fs.ErrNotExist)
// work. io.EOF and disk.ErrWouldBlock come bare.
package osdisk
