// Package osdisk is the real disk: a disk.FS over the host's file system, by
// direct system calls.
//
// It differs from package os in ways that the product rests on. A File has a
// descriptor of its own without a finalizer. Only Close closes it, and only after
// the last running call on it has returned: so no call can reach another file that
// was given the same number. Calls allocate nothing unless they fail. Datasync is
// fdatasync. TryReadAt asks the kernel not to wait (preadv2 with RWF_NOWAIT).
//
// When several reads are under way, further ones are submitted in batches to an
// io_uring that the process shares (see ring). That costs less than a system call
// and a blocked thread for each. If the kernel offers no io_uring they are preads,
// with the same results.
//
// No call returns EINTR. The Go runtime sends itself signals all the time. Its
// handlers restart calls (SA_RESTART), but some calls of some file systems (network,
// FUSE) return EINTR all the same. Such a call has done nothing and reported nothing,
// so it is repeated; package os does the same for those that go through it. Syncs are
// repeated too: only the error of a sync that ran to its end is final. The exception
// is close(2), which on Linux frees the number whatever it returns. It is never
// repeated, since another file may have the number by then.
//
// Errors are *fs.PathError (or *os.LinkError where there are two names) around
// the errno, so errors.Is(err, unix.ENOSPC) and errors.Is(err, fs.ErrNotExist)
// work. io.EOF and disk.ErrWouldBlock come bare.
package osdisk
