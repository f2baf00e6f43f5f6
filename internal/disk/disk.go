// Package disk is the one seam between the system and files. Everything that
// must survive a crash is written through FS and File. So one crash model
// (package crashdisk) and one fault injector (package faultdisk) see every write,
// sync and rename that the product makes.
//
// The contract of durability is that of a POSIX file system without its accidents:
//
//   - A write survives a killed process once it has returned: the kernel has it.
//   - A write survives a power cut once a later Datasync or Sync of that file has
//     returned nil: the medium has it.
//   - A change of a name (OpenFile with Create, Rename, Remove, Link) survives a
//     power cut once a later SyncDir of its directory has returned nil.
//   - After an error of Datasync or Sync, all that was written since the last
//     success counts as lost: nobody may sync again and believe the result.
package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
)

// Errors that callers match with errors.Is. Everything else is the
// operating system's error, wrapped with the operation and the path.
var (
	// ErrWouldBlock is returned by TryReadAt when the bytes are not all in memory.
	ErrWouldBlock = errors.New("disk: would block")

	// ErrAside is matched by the error of a call that was refused because what was
	// opened has been moved aside: the call would change what is in its place. It says
	// nothing about the disk, and passes when what was opened is put back. Whoever can
	// wait for that does, for as long as it takes.
	ErrAside = errors.New("it was moved aside")
	// ErrLocked is returned by Lock when another process holds the lock.
	ErrLocked = errors.New("disk: locked by another process")
	// ErrNotPrivate is returned by Private when other users keep their rights.
	ErrNotPrivate = errors.New("its file system keeps no modes of its own")
)

// Flag says how OpenFile opens.
type Flag int

// Flags for OpenFile. Without Write the file is opened for reading only.
const (
	Write     Flag = 1 << iota // reading and writing
	Create                     // make the file if it is absent
	Exclusive                  // with Create: fail with fs.ErrExist if it is there
	Truncate                   // cut an existing file to length 0
	// Direct, with Write, is a hint: WriteAt calls whose memory, offset and
	// length are multiples of 4096 go past the kernel's cache where the file
	// system can do that. They are durable no sooner than others.
	Direct
)

// Usage is what Statfs reports, in bytes.
type Usage struct {
	Total uint64
	Free  uint64 // available to unprivileged users
	// ID is the file system's. Names with the same ID share its room. It is 0 if the
	// file system has none.
	ID uint64
	// ReadOnly: the file system is mounted so, or the kernel made it so after errors.
	ReadOnly bool
	// Names is how many files and directories there may be, and FreeNames how many more
	// can be made. Both are 0 if only room bounds them.
	Names, FreeNames uint64
}

// FewNames reports whether fewer than n more files can be made, whatever the room.
func (u Usage) FewNames(n uint64) bool { return u.Names > 0 && u.FreeNames < n }

// SameFile reports whether two results of Stat are of one file, which was not written
// in between.
func SameFile(a, b fs.FileInfo) bool {
	return SameInode(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// SameInode reports whether two results of Stat are of one file or directory, whatever
// became of it in between.
func SameInode(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) || a.Sys() != nil && a.Sys() == b.Sys()
}

// FS is a file system. All methods are safe for concurrent use. Names are
// slash-separated paths. Errors for a missing name match fs.ErrNotExist. Other users
// get no rights to what is made: only the owner's part of perm counts.
type FS interface {
	OpenFile(name string, flag Flag, perm fs.FileMode) (File, error)
	Rename(oldName, newName string) error // replaces newName atomically
	Link(oldName, newName string) error
	Remove(name string) error    // a file or an empty directory
	RemoveAll(name string) error // nil if name is absent
	MkdirAll(name string, perm fs.FileMode) error
	ReadDir(name string) ([]string, error) // base names, sorted
	Stat(name string) (fs.FileInfo, error)
	SyncDir(name string) error
	Lock(name string) (io.Closer, error) // advisory, exclusive, gone with the process
	Statfs(name string) (Usage, error)
	// Private takes all rights of group and others off a file or a directory, and
	// returns the mode that it had. It does not follow a symbolic link, and changes
	// only files and directories. The error is ErrNotPrivate if the file system cannot
	// change the mode.
	Private(name string) (was fs.FileMode, err error)
}

// File is an open file. ReadAt, TryReadAt, WriteAt, WritevAt and Datasync may
// run at the same time on one File. Slices are never kept after return.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer

	// TryReadAt fills p without waiting for the medium. If some bytes are not in
	// memory, it asks the kernel to read them, and returns ErrWouldBlock. So one
	// caller can have several reads under way. p may be partly overwritten then.
	TryReadAt(p []byte, off int64) (int, error)

	// WritevAt writes the concatenation of bufs at off in as few system calls
	// as possible, with no allocation in steady state. It returns the number
	// of bytes written; fewer than asked comes with an error.
	WritevAt(bufs [][]byte, off int64) (int, error)

	// Datasync makes everything written before the call durable, with what
	// metadata is needed to read it back.
	Datasync() error

	// Sync is Datasync plus times and modes.
	Sync() error

	// Prewrite fills [off, off+n) with zeros and syncs, so that later
	// overwrites need no allocation and no metadata journal when synced.
	Prewrite(off, n int64) error

	// Allocate takes the room for [off, off+n) on the medium, so that later writes
	// there do not run out of room. What is read does not change. It does nothing on
	// a file system that cannot promise room.
	Allocate(off, n int64) error

	// Writeback asks the kernel to start writing [off, off+n) to the medium
	// without waiting. It promises nothing about durability.
	Writeback(off, n int64) error

	Truncate(size int64) error
	Size() (int64, error)
	Name() string
}
