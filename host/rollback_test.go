package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/gate"
	"openvstorage/volumedriver"
)

// mapperFile names the file that TestMapper maps, in a process of its own: where
// a page fault waits for the mount, nothing else of a process may have to run.
const mapperFile = "OVS_TEST_MAPPER"

// TestMapper maps a file and does what it is told: "N" prints byte N, "N=x" writes
// it.
func TestMapper(t *testing.T) {
	name := os.Getenv(mapperFile)
	if name == "" {
		t.Skip("runs for tests of rollbacks")
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 2*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var at int
		var to byte
		if n, _ := fmt.Sscanf(in.Text(), "%d=%c", &at, &to); n == 2 {
			m[at] = to
		}
		fmt.Fprintf(os.Stderr, "%c\n", m[at])
	}
	os.Exit(0)
}

// mapper starts TestMapper; do tells it something and returns what it answers.
func mapper(t *testing.T, file string) (do func(string) string) {
	t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestMapper$")
	c.Env = append(os.Environ(), mapperFile+"="+file)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	lines := bufio.NewScanner(out)
	return func(what string) string {
		if _, err := io.WriteString(in, what+"\n"); err != nil {
			t.Fatal(err)
		}
		lines.Scan()
		return lines.Text()
	}
}

// A rollback of a vDisk in use is refused. One that is forced is seen by those who
// stay, through the mount also by whoever maps the file; what they had written to
// mapped pages before does not come over it later.
func TestRollbackUnderUsers(t *testing.T) {
	h, m, dir := mountOf(t, crashdisk.New())
	t.Cleanup(func() { // after the process that maps a file of it has ended
		if err := m.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
		_ = h.Close(context.Background())
	})
	ctx := context.Background()
	served := managed{h.embedded, m.Changed}
	name := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(name, []byte(strings.Repeat("1", 2*4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := served.SnapshotCreate(ctx, "a", "s"); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt([]byte(strings.Repeat("2", 4096)), 0); err != nil {
		t.Fatal(err)
	}
	do := mapper(t, name)
	if got := do("0") + do("4096"); got != "21" {
		t.Fatalf("mapped: %s", got)
	}
	if err := served.Rollback(ctx, "a", "s"); !errors.Is(err, volumedriver.ErrBusy) {
		t.Fatalf("rollback under users: %v", err)
	}
	if got := do("0") + do("4096=3"); got != "23" {
		t.Fatalf("after a rollback that was refused: %s", got)
	}
	if err := served.ForceRollback(ctx, "a", "s"); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*4096)
	if _, err := f.ReadAt(b, 0); err != nil || strings.Trim(string(b), "1") != "" {
		t.Errorf("read after the rollback: %.8q, %.8q, %v", b, b[4096:], err)
	}
	if got := do("0") + do("4096"); got != "11" {
		t.Errorf("mapped, after the rollback: %s", got)
	}
	if got := do("4096=4"); got != "4" {
		t.Errorf("mapped and written again: %s", got)
	}
}

// waitsContext tells when somebody waits for its end for the first time.
type waitsContext struct {
	context.Context
	once  sync.Once
	waits chan struct{}
}

func (c *waitsContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.waits) })
	return c.Context.Done()
}

// What is written to mapped pages while a rollback waits for the backend is written
// before it, and not over what it brings back.
func TestRollbackWaitsUnderMapping(t *testing.T) {
	d := faultdisk.New(crashdisk.New())
	h, m, dir := mountOf(t, d)
	t.Cleanup(func() {
		if err := m.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
		_ = h.Close(context.Background())
	})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	name := filepath.Join(dir, "a.raw")
	if err := os.WriteFile(name, []byte(strings.Repeat("1", 2*4096)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, snap := range []string{"s", "gone"} {
		if _, err := h.SnapshotCreate(ctx, "a", snap); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Sync(ctx, "a", nil); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if _, err := f.WriteAt([]byte(strings.Repeat("2", 2*4096)), 0); err != nil {
		t.Fatal(err)
	}
	do := mapper(t, name)

	// A deletion of a snapshot, for which a rollback waits, waits for the
	// group that keeps its catalog.
	away := gate.New()
	defer away.Open()
	var hanging atomic.Bool
	d.Inject(faultdisk.Rule{Ops: faultdisk.Write, Before: func(_ faultdisk.Op, name string) {
		if hanging.Load() && strings.HasPrefix(name, "/data/arakoon/nsm-") {
			_ = away.Hold(context.Background())
		}
	}})
	hanging.Store(true)
	deleted, rolled := make(chan error, 1), make(chan error, 1)
	go func() { deleted <- h.SnapshotDelete(ctx, "a", "gone") }()
	for { // until it keeps rollbacks out
		names, err := h.Exports(ctx)
		if err := errors.Join(err, ctx.Err()); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(names, "a@gone") {
			break
		}
		runtime.Gosched()
	}
	waits := &waitsContext{Context: ctx, waits: make(chan struct{})}
	go func() { rolled <- managed{h.embedded, m.Changed}.ForceRollback(waits, "a", "s") }()
	<-waits.waits
	if got := do("0=3") + do("4096"); got != "32" {
		t.Errorf("mapped, while the rollback waits: %s", got)
	}
	hanging.Store(false)
	away.Open()
	if err := errors.Join(<-deleted, <-rolled); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2*4096)
	if _, err := f.ReadAt(b, 0); err != nil || strings.Trim(string(b), "1") != "" {
		t.Errorf("read after the rollback: %.8q, %.8q, %v", b, b[4096:], err)
	}
	if got := do("0") + do("4096"); got != "11" {
		t.Errorf("mapped, after the rollback: %s", got)
	}
}
