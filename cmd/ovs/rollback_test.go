package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"openvstorage/internal/disk/crashdisk"
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
		t.Skip("runs for TestRollbackUnderUsers")
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
// stay, through the mount also by who maps the file; what they had written to
// mapped pages before does not come over it later.
func TestRollbackUnderUsers(t *testing.T) {
	h, m, dir := mountOf(t, crashdisk.New())
	t.Cleanup(func() { // behind the end of who maps a file of it
		if err := m.Unmount(context.Background()); err != nil {
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			t.Error(err)
		}
		_ = h.Close(context.Background())
	})
	ctx := context.Background()
	served := rolledHost{h, m.Changed}
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
