package asd

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

// openFiles returns the files of an ASD that only an open reads.
func openFiles(t *testing.T, fsys disk.FS) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for _, name := range []string{identityName, claimName} {
		f, err := fsys.OpenFile(path.Join("disk", name), 0, 0)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 64<<10)
		n, err := f.ReadAt(b, 0)
		if err != nil && err != io.EOF {
			t.Fatal(err)
		}
		files[name] = b[:n]
		_ = f.Close()
	}
	return files
}

func usageOf(t *testing.T, a *ASD) osd.Usage {
	t.Helper()
	u, err := a.Usage(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What the next open would stumble over is told while the ASD is open. It is read and
// written on, nothing is done about it, and with the file restored all is well.
func TestTroubleIsTold(t *testing.T) {
	owner := uuid.New()
	flip := func(name string, at int64) func(*testing.T, *crashdisk.FS, *faultdisk.FS) {
		return func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) { corrupt(t, mem, "disk/"+name, at) }
	}
	for what, happen := range map[string]func(*testing.T, *crashdisk.FS, *faultdisk.FS){
		"identity: head": flip(identityName, 3),
		"identity: end":  flip(identityName, 70),
		"identity: cut":  func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) { write(t, mem, "disk/"+identityName, nil) },
		"identity: of another backend": func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) {
			if err := writeIdentity(mem, "disk", Identity{ID: testID.ID, Owner: uuid.New()}); err != nil {
				t.Fatal(err)
			}
		},
		"identity: unreadable": func(_ *testing.T, _ *crashdisk.FS, fsys *faultdisk.FS) {
			fsys.Inject(faultdisk.Rule{Ops: faultdisk.Read, Path: "disk/" + identityName, Err: unix.EIO})
		},
		"claim: both blocks": func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) {
			corrupt(t, mem, "disk/"+claimName, 9)
			corrupt(t, mem, "disk/"+claimName, blockSize+9)
		},
		"claim: the newest block": func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) {
			corrupt(t, mem, "disk/"+claimName, 9) // turn 2
		},
		"claim: gone": func(t *testing.T, mem *crashdisk.FS, _ *faultdisk.FS) {
			if err := mem.Remove("disk/" + claimName); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			mem := crashdisk.New()
			fsys := faultdisk.New(mem)
			opt := small(fsys)
			opt.inspect = time.Nanosecond // nothing need have changed in what the names say
			a := openNew(t, opt)
			if err := a.Claim(ctx, owner); err != nil {
				t.Fatal(err)
			}
			for n := range uint64(2) {
				if err := a.Raise(ctx, generation.Mark{Number: n + 1}); err != nil {
					t.Fatal(err)
				}
			}
			apply(t, a, put("k", []byte("v"), 1))
			if u := usageOf(t, a); u.Trouble != nil || u.ReadOnly != nil {
				t.Fatal(u.Trouble, u.ReadOnly)
			}
			good := openFiles(t, mem)
			happen(t, mem, fsys)
			bad := openFiles(t, mem)
			name, _, _ := strings.Cut(what, ":")
			for range 3 {
				if u := usageOf(t, a); u.Trouble == nil || !strings.Contains(u.Trouble.Error(), "disk/"+name) || u.ReadOnly != nil || u.Full {
					t.Errorf("trouble %v, read-only %v", u.Trouble, u.ReadOnly)
				}
				mustGet(t, a, "k", []byte("v"))
				apply(t, a, put("l", []byte("w"), 1))
			}
			for name, b := range openFiles(t, mem) {
				if !bytes.Equal(b, bad[name]) {
					t.Errorf("%s was changed", name)
				}
			}
			fsys.Clear()
			for name, b := range good {
				write(t, mem, "disk/"+name, b)
			}
			if u := usageOf(t, a); u.Trouble != nil || u.ReadOnly != nil {
				t.Errorf("restored: %v, %v", u.Trouble, u.ReadOnly)
			}
			if err := a.Close(); err != nil {
				t.Fatal(err)
			}
			a = reopen(t, opt)
			mustGet(t, a, "l", []byte("w"))
		})
	}
}

// An error that passes says nothing of a file.
func TestTroubleThatPassesIsNone(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENOMEM, unix.EACCES, unix.EINTR} {
		fsys := faultdisk.New(crashdisk.New())
		opt := small(fsys)
		opt.inspect = time.Nanosecond
		a := openNew(t, opt)
		for _, op := range []faultdisk.Op{faultdisk.Open, faultdisk.Read} {
			fsys.Inject(faultdisk.Rule{Ops: op, Path: "disk/" + identityName, Err: errno})
			if u := usageOf(t, a); u.Trouble != nil || u.ReadOnly != nil {
				t.Errorf("%v of %v: %v, %v", errno, op, u.Trouble, u.ReadOnly)
			}
			fsys.Clear()
		}
	}
}

// A file system that has failed may say so in nothing but that it lets no file be opened
// to be written. That is found out without a write, and what is there is read.
func TestFailedFileSystemIsSeenIdle(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EROFS, unix.EIO, unix.ESHUTDOWN} {
		fsys := &emergency{FS: crashdisk.New()}
		opt := small(fsys)
		opt.inspect = time.Nanosecond
		a := openNew(t, opt)
		apply(t, a, put("k", []byte("v"), 1))
		if u := usageOf(t, a); u.ReadOnly != nil {
			t.Fatal(u.ReadOnly)
		}
		fsys.errno.Store(&errno)
		if u := usageOf(t, a); !errors.Is(u.ReadOnly, errno) || !u.Full || u.Trouble != nil {
			t.Errorf("%v: read-only %v, trouble %v", errno, u.ReadOnly, u.Trouble)
		}
		mustGet(t, a, "k", []byte("v"))
	}
}

// emergency is a file system that has failed, and tells whoever opens a file to write.
type emergency struct {
	disk.FS
	errno atomic.Pointer[unix.Errno]
}

func (e *emergency) OpenFile(name string, flag disk.Flag, perm fs.FileMode) (disk.File, error) {
	if errno := e.errno.Load(); errno != nil && flag != 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: *errno}
	}
	return e.FS.OpenFile(name, flag, perm)
}

// When the directory leads elsewhere the figures are those of the disk all the same, and
// nothing more is written: it was unmounted though it is in use, another file system is
// mounted over it, or a copy of the same.
func TestFiguresAreTheDisks(t *testing.T) {
	for what, happen := range map[string]func(*testing.T, *crashdisk.FS, *mounts){
		"unmounted": func(t *testing.T, mem *crashdisk.FS, m *mounts) {
			if err := errors.Join(mem.Rename("disk", "detached"), mem.MkdirAll("disk", 0o700)); err != nil {
				t.Fatal(err)
			}
			m.on.Store(2)
		},
		"unmounted, without ids": func(t *testing.T, mem *crashdisk.FS, m *mounts) {
			m.mute.Store(true)
			if err := errors.Join(mem.Rename("disk", "detached"), mem.MkdirAll("disk", 0o700)); err != nil {
				t.Fatal(err)
			}
			m.on.Store(2)
		},
		"a copy over it": func(t *testing.T, mem *crashdisk.FS, m *mounts) {
			files := openFiles(t, mem)
			if err := errors.Join(mem.Rename("disk", "detached"), mem.MkdirAll("disk", 0o700)); err != nil {
				t.Fatal(err)
			}
			files[LockName] = nil
			for name, b := range files {
				write(t, mem, "disk/"+name, b)
			}
			m.on.Store(2)
		},
	} {
		t.Run(what, func(t *testing.T) {
			mem := crashdisk.New()
			m := &mounts{FS: mem}
			m.on.Store(1)
			a := openNew(t, small(m))
			apply(t, a, put("k", []byte("v"), 1))
			before := usageOf(t, a)
			happen(t, mem, m)
			for range 3 {
				u := usageOf(t, a)
				if u.ReadOnly == nil || !u.Full {
					t.Errorf("it takes writes: %+v", u)
				}
				if u.Capacity != before.Capacity || u.Used != before.Used {
					t.Errorf("%d of %d bytes are used, it was %d of %d", u.Used, u.Capacity, before.Used, before.Capacity)
				}
			}
			mustGet(t, a, "k", []byte("v"))
		})
	}
}

// mounts are file systems of other sizes, one of which is where an ASD is.
type mounts struct {
	disk.FS
	on   atomic.Uint64 // which
	mute atomic.Bool   // they have no ids
}

func (m *mounts) Statfs(name string) (disk.Usage, error) {
	_, err := m.FS.Statfs(name)
	n := m.on.Load()
	u := disk.Usage{Total: n << 30, Free: n << 29, ID: n}
	if m.mute.Load() {
		u.ID = 0
	}
	return u, err
}

// A file system that comes to call itself otherwise is the same while the files are.
func TestOtherNameOfTheFileSystem(t *testing.T) {
	m := &mounts{FS: crashdisk.New()}
	m.on.Store(1)
	a := openNew(t, small(m))
	usageOf(t, a)
	m.on.Store(2)
	if u := usageOf(t, a); u.ReadOnly != nil || u.Shared != 2 {
		t.Errorf("%+v", u)
	}
}
