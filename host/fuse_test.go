package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/backend"
	"openvstorage/fusefs"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// mountWhole opens the system on a disk and mounts it, until end is called.
func mountWhole(t *testing.T, d disk.FS) (h *whole, dir string, end func()) {
	t.Helper()
	h, m, dir := mountOf(t, d)
	return h, dir, func() {
		if err := m.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
		_ = h.Close(context.Background())
	}
}

// mountOf opens the system on a disk and mounts it.
func mountOf(t *testing.T, d disk.FS) (h *whole, m *fusefs.FS, dir string) {
	t.Helper()
	if f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and /dev/fuse")
	} else {
		f.Close()
	}
	h, err := openWhole(d, nil)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if m, err = mountFiles(context.Background(), h.embedded, nil, Options{Mount: dir, self: true}); err != nil {
		t.Fatal(errors.Join(err, h.Close(context.Background())))
	}
	return h, m, dir
}

// A vDisk made, written and deleted through the mount, over all the layers.
func TestMountWhole(t *testing.T) {
	h, dir, end := mountWhole(t, crashdisk.New())
	defer end()
	name := filepath.Join(dir, "vm", "a.raw")
	if err := os.Mkdir(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for range 2 { // the second time over O_TRUNC
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := h.Info(context.Background(), "vm/a"); err != nil || info.Size != uint64(len(data)) {
		t.Errorf("the vDisk: %+v, %v", info, err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(data)-5)
	if _, err := f.ReadAt(got, 5); err != nil || !bytes.Equal(got, data[5:]) {
		t.Errorf("read differs: %v", err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(name); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("unlink of an open vDisk: %v", err)
	}
	f.Close()
	if err := os.Remove(name); err != nil {
		t.Error(err)
	}
}

// Every error that the packages below the mount export is in the table, or is
// EIO on purpose.
func TestFileErrors(t *testing.T) {
	const eio = syscall.EIO
	want := map[error]syscall.Errno{
		volumedriver.ErrNotFound: syscall.ENOENT, volumedriver.ErrExists: syscall.EEXIST, volumedriver.ErrHasChildren: syscall.EBUSY,
		volumedriver.ErrInvalid: syscall.EINVAL, volumedriver.ErrHalted: eio, volumedriver.ErrBusy: syscall.EBUSY,
		volumedriver.ErrUnknownOutcome: eio, volumedriver.ErrElsewhere: syscall.EREMOTE,
		backend.ErrKey:     syscall.ENOKEY,
		backend.ErrNoSpace: syscall.ENOSPC, registry.ErrFull: syscall.ENOSPC, registry.ErrMany: syscall.EOPNOTSUPP,
		// The volume driver gives these a kind of its own, or nobody is to see them.
		registry.ErrNotFound: eio, registry.ErrNameTaken: eio, registry.ErrIDTaken: eio, registry.ErrName: eio,
		registry.ErrClosed: eio, registry.ErrFailed: eio, registry.ErrImport: eio,
		registry.ErrNotOwner: eio, registry.ErrNotSwapped: eio, registry.ErrUnknownOutcome: eio,
		backend.ErrNotFound: eio, backend.ErrExists: eio, backend.ErrConflict: eio, backend.ErrNamespaceNotFound: eio,
		backend.ErrNamespaceExists: eio, backend.ErrCorrupt: eio, backend.ErrName: eio, backend.ErrClosed: eio,
		backend.ErrFailed: eio, backend.ErrUnavailable: eio, // waited for as long as it may
	}
	for dir, count := range map[string]int{"volumedriver": 8, "volumedriver/registry": 12, "backend": 12} {
		if n := exportedErrors(t, filepath.Join("..", dir)); n != count {
			t.Errorf("package %s exports %d errors, this test knows %d: say what errno the new one is", dir, n, count)
		}
	}
	for err, errno := range want {
		got := fileError(fmt.Errorf("vDisk a: %w: %w", err, errors.New("why")))
		if errno != eio && !errors.Is(got, errno) || errno == eio && errors.As(got, new(syscall.Errno)) && !errors.Is(got, eio) {
			t.Errorf("%v: %v, want %v", err, got, errno)
		}
	}
	// Of an error that is several things, one counts: that of a halted vDisk is EIO,
	// though its disk was full.
	got := fileError(fmt.Errorf("%w: %w: %w: %w", volumedriver.ErrBusy, syscall.ENOSPC, volumedriver.ErrHalted, fs.ErrNotExist))
	if !errors.Is(got, eio) || errors.Is(got, syscall.EBUSY) || errors.Is(got, syscall.ENOSPC) || errors.Is(got, fs.ErrNotExist) {
		t.Error(got)
	}
	if err := fileError(nil); err != nil {
		t.Error(err)
	}
}

// exportedErrors counts the variables named Err... of a package.
func exportedErrors(t *testing.T, dir string) (n int) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.VAR {
				continue
			}
			for _, s := range g.Specs {
				for _, id := range s.(*ast.ValueSpec).Names {
					if strings.HasPrefix(id.Name, "Err") {
						n++
					}
				}
			}
		}
	}
	return n
}

// A directory with vDisks is renamed over all the layers, open files and
// snapshots included, and is there under its new name when the host is opened
// again.
func TestRenameDirectoryWhole(t *testing.T) {
	d := crashdisk.New()
	with := func(fn func(h *whole, dir string)) {
		h, dir, end := mountWhole(t, d)
		defer end()
		fn(h, dir)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<14)
	with(func(h *whole, dir string) {
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		at := func(name string) string { return filepath.Join(dir, name) }
		must(os.MkdirAll(at("vm1/nvram"), 0o755))
		for i := range 20 {
			must(os.WriteFile(at(fmt.Sprintf("vm1/disk%d.raw", i)), data[:4096*(i+1)], 0o600))
		}
		must(os.WriteFile(at("vm1/nvram/vars"), []byte("vars"), 0o600))
		must(unix.Setxattr(at("vm1/disk3.raw"), "user.ovs.snapshot", []byte("s"), 0))
		f, err := os.OpenFile(at("vm1/disk3.raw"), os.O_RDWR, 0)
		must(err)
		_, err = h.Create(context.Background(), "taken/disk7", 4096)
		must(err)
		if err := unix.Rename(at("vm1"), at("taken")); !errors.Is(err, syscall.ENOTEMPTY) {
			t.Errorf("onto a directory with a vDisk: %v", err)
		}
		must(unix.Rename(at("vm1"), at("vm2")))
		_, err = f.WriteAt([]byte("after"), 0)
		must(err)
		must(errors.Join(f.Sync(), f.Close()))
		must(exec.Command("cp", at(".snapshots/vm2/disk3/s.raw"), at("vm2/back.raw")).Run())
		if i, err := h.Info(context.Background(), "vm2/back"); err != nil || i.Parent != "vm2/disk3@s" {
			t.Errorf("the copy of a snapshot is no clone: %+v, %v", i, err)
		}
	})
	with(func(h *whole, dir string) {
		at := func(name string) string { return filepath.Join(dir, "vm2", name) }
		for i := range 20 {
			want := bytes.Clone(data[:4096*(i+1)])
			if i == 3 {
				copy(want, "after")
			}
			if got, err := os.ReadFile(at(fmt.Sprintf("disk%d.raw", i))); err != nil || !bytes.Equal(got, want) {
				t.Errorf("vDisk %d differs: %v", i, err)
			}
		}
		if got, err := os.ReadFile(at("back.raw")); err != nil || !bytes.Equal(got, data[:4096*4]) {
			t.Errorf("the copy of a snapshot differs: %v", err)
		}
		if got, err := os.ReadFile(at("nvram/vars")); err != nil || string(got) != "vars" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// A vDisk has up to 64 TiB, to the last byte, and not one more.
func TestMountLargest(t *testing.T) {
	_, dir, end := mountWhole(t, crashdisk.New())
	defer end()
	const limit = 64 << 40
	f, err := os.Create(filepath.Join(dir, "a.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("end"), limit-3); err != nil {
		t.Fatal(err)
	}
	if s, err := f.Stat(); err != nil || s.Size() != limit {
		t.Errorf("%d bytes, %v", s.Size(), err)
	}
	b := make([]byte, 10)
	if n, _ := f.ReadAt(b, limit-3); string(b[:n]) != "end" {
		t.Errorf("%q at the end", b[:n])
	}
	if at, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA); err != nil || at != limit-4096 {
		t.Errorf("SEEK_DATA: %d, %v", at, err)
	}
	for what, err := range map[string]error{
		"a byte more":    func() error { _, err := f.WriteAt([]byte("x"), limit); return err }(),
		"over the end":   func() error { _, err := unix.Pwrite(int(f.Fd()), []byte("xy"), limit-1); return err }(),
		"truncate":       f.Truncate(limit + 1),
		"fallocate":      unix.Fallocate(int(f.Fd()), 0, limit-4096, 8192),
		"another, empty": os.Truncate(func() string { n := filepath.Join(dir, "b.raw"); _ = os.WriteFile(n, nil, 0o600); return n }(), limit+4096),
	} {
		if !errors.Is(err, syscall.EFBIG) {
			t.Errorf("%s: %v, want EFBIG", what, err)
		}
	}
}
