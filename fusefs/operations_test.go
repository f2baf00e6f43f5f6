package fusefs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

var updateOperations = flag.Bool("update", false, "write the table of docs/fuse-operations.md anew; read what changed")

const operationsDoc = "../docs/fuse-operations.md"

// kinds are the columns of the table: every kind of node, and how a fresh one is
// made below a directory of the mount.
var kinds = []struct {
	name string
	make func(dir, below string) string // returns its path
}{
	{"vDisk", func(dir, below string) string { return fresh(dir, below, "a.raw", 8192) }},
	{"halted", func(dir, below string) string { return fresh(dir, below, "a.raw", 8192) }},
	{"empty file", func(dir, below string) string { return fresh(dir, below, "a.raw", 0) }},
	{"small file", func(dir, below string) string { return fresh(dir, below, "a.txt", 8192) }},
	{"directory", func(dir, below string) string { return fresh(dir, below, "d", -1) }},
	{"the mount", func(dir, _ string) string { return dir }},
	{"`.snapshots`", func(dir, below string) string { return filepath.Dir(snapshotOf(dir, below)) }},
	{"snapshot", snapshotOf},
}

// fresh makes a file, or a directory of size -1.
func fresh(dir, below, name string, size int) string {
	name = filepath.Join(dir, below, name)
	if size < 0 {
		_ = os.MkdirAll(name, 0o755)
		return name
	}
	_ = os.MkdirAll(filepath.Dir(name), 0o755)
	if err := os.WriteFile(name, bytes.Repeat([]byte{'x'}, size), 0o600); err != nil {
		panic(err)
	}
	return name
}

func snapshotOf(dir, below string) string {
	if err := unix.Setxattr(fresh(dir, below, "a.raw", 8192), "user.ovs.snapshot", []byte("s"), 0); err != nil {
		panic(err)
	}
	return filepath.Join(dir, ".snapshots", below, "a", "s.raw")
}

// operation is a row of the table. beside is a directory of the mount, of its
// own.
type operation struct {
	name string
	do   func(node, beside string) error
}

// opened makes an operation on an open file. A snapshot or a directory is opened
// for reading.
func opened(do func(fd int) error) func(string, string) error {
	return func(node, _ string) error {
		f, err := os.OpenFile(node, os.O_RDWR, 0)
		if errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EISDIR) {
			f, err = os.Open(node)
		}
		if err != nil {
			return err
		}
		defer f.Close()
		return do(int(f.Fd()))
	}
}

func opens(flags int) func(string, string) error {
	return func(node, _ string) error {
		fd, err := unix.Open(node, flags, 0o600)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

func fallocates(mode uint32, off, n int64) func(string, string) error {
	return opened(func(fd int) error { return unix.Fallocate(fd, mode, off, n) })
}

func truncates(size int64) func(string, string) error {
	return func(node, _ string) error { return unix.Truncate(node, size) }
}

func seeks(off int64, whence int) func(string, string) error {
	return opened(func(fd int) error { _, err := unix.Seek(fd, off, whence); return err })
}

func setxattrs(name string, flags int) func(string, string) error {
	return func(node, _ string) error { return unix.Setxattr(node, name, []byte("v"), flags) }
}

func ioctls(request uint) func(string, string) error {
	return opened(func(fd int) error { _, err := unix.IoctlGetInt(fd, request); return err })
}

func renames(flags uint, to string) func(string, string) error {
	return func(node, beside string) error {
		name := filepath.Join(beside, to)
		if strings.HasSuffix(to, "/") {
			name = filepath.Join(beside, to, "new"+filepath.Ext(node))
		}
		return unix.Renameat2(unix.AT_FDCWD, node, unix.AT_FDCWD, name, flags)
	}
}

// in makes an operation on a name that is free in the node.
func in(do func(name string) error) func(string, string) error {
	return func(node, beside string) error { return do(filepath.Join(node, filepath.Base(beside)+".new")) }
}

// copies copies from the node onto a file, or with into from one onto the node.
func copies(file string, into bool) func(string, string) error {
	return func(node, beside string) error {
		other := filepath.Join(beside, file)
		from, to := node, other
		if into {
			from, to = other, node
			if err := os.WriteFile(other, bytes.Repeat([]byte{'y'}, 4096), 0o600); err != nil {
				return err
			}
		} else if f, err := os.Create(other); err != nil || f.Close() != nil {
			return err
		}
		in, err := os.Open(from)
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := os.OpenFile(to, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer out.Close()
		_, err = unix.CopyFileRange(int(in.Fd()), nil, int(out.Fd()), nil, 4096, 0)
		return err
	}
}

// operations are the rows of the table in docs/fuse-operations.md, in order.
var operations = []operation{
	{"open for reading", opens(unix.O_RDONLY)},
	{"open for writing", opens(unix.O_WRONLY)},
	{"open with `O_TRUNC`", opens(unix.O_WRONLY | unix.O_TRUNC)},
	{"open with `O_APPEND`", opens(unix.O_WRONLY | unix.O_APPEND)},
	{"open with `O_DIRECT`", opens(unix.O_RDONLY | unix.O_DIRECT)},
	{"open with `O_SYNC`", opens(unix.O_RDWR | unix.O_SYNC)},
	{"open with `O_CREAT`, `O_EXCL`", opens(unix.O_RDWR | unix.O_CREAT | unix.O_EXCL)},
	{"open with `O_DIRECTORY`", opens(unix.O_RDONLY | unix.O_DIRECTORY)},
	{"open with `O_TMPFILE`", opens(unix.O_RDWR | unix.O_TMPFILE)},
	{"open with `O_PATH`", opens(unix.O_PATH)},

	{"read", opened(func(fd int) error { _, err := unix.Pread(fd, make([]byte, 100), 0); return err })},
	{"read at the end", opened(func(fd int) error {
		n, err := unix.Pread(fd, make([]byte, 100), 1<<40)
		if err == nil && n != 0 {
			err = fmt.Errorf("%d bytes", n)
		}
		return err
	})},
	{"read at a negative offset", opened(func(fd int) error { _, err := unix.Pread(fd, make([]byte, 100), -1); return err })},
	{"write", func(node, _ string) error {
		f, err := os.OpenFile(node, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("w"), 3)
		return err
	}},
	{"write over the limit of sizes", func(node, _ string) error {
		f, err := os.OpenFile(node, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.WriteAt([]byte("w"), 64<<40)
		return err
	}},
	{"fsync", opened(unix.Fsync)},
	{"fdatasync", opened(unix.Fdatasync)},
	{"syncfs", opened(unix.Syncfs)},
	{"sync_file_range", opened(func(fd int) error { return unix.SyncFileRange(fd, 0, 4096, unix.SYNC_FILE_RANGE_WRITE) })},
	{"posix_fadvise", opened(func(fd int) error { return unix.Fadvise(fd, 0, 4096, unix.FADV_DONTNEED) })},

	{"truncate to more", truncates(16384)},
	{"truncate to less", truncates(4096)},
	{"truncate to nothing", truncates(0)},
	{"truncate over the limit of sizes", truncates(64<<40 + 1)},
	{"truncate to a negative size", truncates(-1)},
	{"fallocate", fallocates(0, 0, 12288)},
	{"fallocate `KEEP_SIZE`", fallocates(unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20)},
	{"fallocate `PUNCH_HOLE`", fallocates(unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 4096)},
	{"fallocate `ZERO_RANGE`", fallocates(unix.FALLOC_FL_ZERO_RANGE, 0, 12288)},
	{"fallocate `COLLAPSE_RANGE`", fallocates(unix.FALLOC_FL_COLLAPSE_RANGE, 0, 4096)},
	{"fallocate `INSERT_RANGE`", fallocates(unix.FALLOC_FL_INSERT_RANGE, 0, 4096)},
	{"fallocate `UNSHARE_RANGE`", fallocates(unix.FALLOC_FL_UNSHARE_RANGE, 0, 4096)},
	{"fallocate over the limit of sizes", fallocates(0, 64<<40, 4096)},

	{"lseek `SEEK_END`", seeks(0, io.SeekEnd)},
	{"lseek to a negative offset", seeks(-1, io.SeekStart)},
	{"lseek `SEEK_DATA`", seeks(0, unix.SEEK_DATA)},
	{"lseek `SEEK_HOLE`", seeks(0, unix.SEEK_HOLE)},
	{"lseek `SEEK_DATA` behind the end", seeks(1<<40, unix.SEEK_DATA)},

	{"stat", func(node, _ string) error { return unix.Stat(node, new(unix.Stat_t)) }},
	{"statx", func(node, _ string) error {
		return unix.Statx(unix.AT_FDCWD, node, 0, unix.STATX_ALL, new(unix.Statx_t))
	}},
	{"statfs", func(node, _ string) error {
		var st unix.Statfs_t
		err := unix.Statfs(node, &st)
		if err == nil && st.Blocks == 0 {
			err = errors.New("no blocks")
		}
		return err
	}},
	{"access", func(node, _ string) error { return unix.Access(node, unix.R_OK) }},
	{"chmod", func(node, _ string) error { return unix.Chmod(node, 0o700) }},
	{"chown", func(node, _ string) error { return unix.Chown(node, 1, 2) }},
	{"utimensat", func(node, _ string) error {
		return unix.UtimesNanoAt(unix.AT_FDCWD, node, []unix.Timespec{{Sec: 1}, {Sec: 2}}, 0)
	}},

	{"getxattr `user.ovs.id`", func(node, _ string) error {
		_, err := unix.Getxattr(node, "user.ovs.id", make([]byte, 100))
		return err
	}},
	{"getxattr, for its size", func(node, _ string) error {
		n, err := unix.Getxattr(node, "user.ovs.id", nil)
		if err == nil && n != 36 {
			err = fmt.Errorf("%d bytes", n)
		}
		return err
	}},
	{"getxattr into too little", func(node, _ string) error {
		_, err := unix.Getxattr(node, "user.ovs.id", make([]byte, 5))
		return err
	}},
	{"getxattr of another name", func(node, _ string) error {
		_, err := unix.Getxattr(node, "user.other", make([]byte, 100))
		return err
	}},
	{"listxattr", func(node, _ string) error { _, err := unix.Listxattr(node, make([]byte, 1000)); return err }},
	{"listxattr, for its size", func(node, _ string) error { _, err := unix.Listxattr(node, nil); return err }},
	{"listxattr into too little", func(node, _ string) error { _, err := unix.Listxattr(node, make([]byte, 5)); return err }},
	{"setxattr `user.ovs.snapshot`", setxattrs("user.ovs.snapshot", 0)},
	{"setxattr `user.ovs.snapshot`, `XATTR_CREATE`", setxattrs("user.ovs.snapshot", unix.XATTR_CREATE)},
	{"setxattr `user.ovs.snapshot`, `XATTR_REPLACE`", setxattrs("user.ovs.snapshot", unix.XATTR_REPLACE)},
	{"setxattr `user.ovs.id`", setxattrs("user.ovs.id", 0)},
	{"setxattr of another name", setxattrs("user.other", 0)},
	{"removexattr `user.ovs.id`", func(node, _ string) error { return unix.Removexattr(node, "user.ovs.id") }},
	{"removexattr of another name", func(node, _ string) error { return unix.Removexattr(node, "user.other") }},

	{"ioctl `FICLONE`", func(node, beside string) error {
		f, err := os.Create(filepath.Join(beside, "clone.raw"))
		if err != nil {
			return err
		}
		defer f.Close()
		return opened(func(fd int) error { return unix.IoctlFileClone(int(f.Fd()), fd) })(node, beside)
	}},
	{"ioctl `FIEMAP`", ioctls(0xc020660b)},
	{"ioctl `BLKGETSIZE64`", ioctls(unix.BLKGETSIZE64)},
	{"ioctl `FS_IOC_GETFLAGS`", ioctls(unix.FS_IOC_GETFLAGS)},
	{"ioctl of another number", ioctls(0x7a7a)},
	{"flock", opened(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })},
	{"fcntl lock, for reading", opened(func(fd int) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
	})},
	{"fcntl lock, for writing", opened(func(fd int) error {
		return unix.FcntlFlock(uintptr(fd), unix.F_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	})},
	{"poll", opened(func(fd int) error {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}, 0)
		if err == nil && n != 1 {
			err = errors.New("not ready")
		}
		return err
	})},
	{"mmap, private", opened(func(fd int) error { return mapsOf(fd, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE) })},
	{"mmap, shared, for reading", opened(func(fd int) error { return mapsOf(fd, unix.PROT_READ, unix.MAP_SHARED) })},
	{"mmap, shared, for writing", opened(func(fd int) error { return mapsOf(fd, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED) })},
	{"copy_file_range to an empty `NAME.raw`", copies("to.raw", false)},
	{"copy_file_range to a small file", copies("copy", false)},
	{"copy_file_range from a vDisk", copies("from.raw", true)},
	{"copy_file_range from a small file", copies("from", true)},

	{"unlink", func(node, _ string) error { return unix.Unlink(node) }},
	{"rmdir", func(node, _ string) error { return unix.Rmdir(node) }},
	{"rename to a free name", renames(0, "to/")},
	{"rename to `NAME.txt`", renames(0, "new.txt")},
	{"rename to `NAME.raw`", renames(0, "new.raw")},
	{"rename to a name with `@`", renames(0, "n@w.raw")},
	{"rename onto a vDisk", renames(0, "disk.raw")},
	{"rename onto a small file", renames(0, "small")},
	{"rename onto an empty directory", renames(0, "none")},
	{"rename onto a full directory", renames(0, "full")},
	{"rename, `RENAME_NOREPLACE`", renames(unix.RENAME_NOREPLACE, "small")},
	{"rename, `RENAME_EXCHANGE`", renames(unix.RENAME_EXCHANGE, "small")},
	{"rename, `RENAME_WHITEOUT`", renames(unix.RENAME_WHITEOUT, "to/")},
	{"rename into `.snapshots`", func(node, beside string) error {
		name := filepath.Base(beside)
		return unix.Rename(node, filepath.Join(filepath.Dir(beside), ".snapshots", name, "new"+filepath.Ext(node)))
	}},
	{"link to", func(node, beside string) error { return unix.Link(node, filepath.Join(beside, "link")) }},
	{"readlink", func(node, _ string) error { _, err := unix.Readlink(node, make([]byte, 100)); return err }},

	{"readdir", func(node, _ string) error { _, err := os.ReadDir(node); return err }},
	{"chdir", func(node, _ string) error { return opened(unix.Fchdir)(node, "") }},
	{"create in it", in(func(name string) error { return os.WriteFile(name, nil, 0o600) })},
	{"create `NAME.raw` in it", in(func(name string) error { return os.WriteFile(name+".raw", nil, 0o600) })},
	{"mkdir in it", in(func(name string) error { return unix.Mkdir(name, 0o755) })},
	{"symlink in it", in(func(name string) error { return unix.Symlink("x", name) })},
	{"mknod in it", in(func(name string) error { return unix.Mkfifo(name, 0o600) })},
	{"unlink of what is not there", in(unix.Unlink)},
	{"rmdir of what is not there", in(unix.Rmdir)},
}

func mapsOf(fd, prot, flags int) error {
	m, err := unix.Mmap(fd, 0, 4096, prot, flags)
	if err != nil {
		return err
	}
	return unix.Munmap(m)
}

// result is a cell of the table.
func result(err error) string {
	var e syscall.Errno
	switch {
	case err == nil:
		return "yes"
	case errors.Is(err, syscall.EOPNOTSUPP): // ENOTSUP is the same number
		return "`EOPNOTSUPP`"
	case errors.As(err, &e):
		return "`" + unix.ErrnoName(e) + "`"
	}
	return err.Error()
}

// TestOperationsTable does every operation on every kind of node, on a real
// mount, and compares what it answers with the table in docs/fuse-operations.md.
func TestOperationsTable(t *testing.T) {
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	lines.WriteString("| Operation |")
	for _, k := range kinds {
		lines.WriteString(" " + k.name + " |")
	}
	lines.WriteString("\n|---|" + strings.Repeat("---|", len(kinds)) + "\n")
	for i, o := range operations {
		keys := treetest.New()
		pool := memtest.New(keys)
		remount(t, pool, keys, func(dir string) {
			lines.WriteString("| " + o.name + " |")
			for j, k := range kinds {
				below := fmt.Sprintf("of%d-%d", i, j)
				node, beside := k.make(dir, below), filepath.Join(dir, below+"-beside")
				fresh(dir, below+"-beside", "to", -1)
				fresh(dir, below+"-beside", "none", -1)
				fresh(dir, below+"-beside", "full/x", -1)
				fresh(dir, below+"-beside", "small", 10)
				fresh(dir, below+"-beside", "disk.raw", 4096)
				if k.name == "halted" {
					pool.Halt(below + "/a")
				}
				lines.WriteString(" " + result(o.do(node, beside)) + " |")
				if err := os.Chdir(at); err != nil {
					t.Fatal(err)
				}
			}
			lines.WriteString("\n")
		})
	}
	doc, err := os.ReadFile(operationsDoc)
	if err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(string(doc), "| Operation |")
	table, tail, _ := strings.Cut("| Operation |"+rest, "\n\n")
	if *updateOperations {
		if err := os.WriteFile(operationsDoc, []byte(head+lines.String()+"\n"+tail), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, got := strings.Split(table+"\n", "\n"), strings.Split(lines.String(), "\n")
	for i := range max(len(want), len(got)) {
		switch {
		case i >= len(want) || i >= len(got):
			t.Fatalf("the table has %d lines, there are %d operations", len(want), len(got))
		case want[i] != got[i]:
			t.Errorf("the table says\n%s\nand the mount\n%s", want[i], got[i])
		}
	}
}
