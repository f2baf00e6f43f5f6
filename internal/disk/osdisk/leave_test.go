package osdisk

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/disk"
)

// leaver is the process of TestLeave: it holds two locks and writes without end, leaves
// when it is told, and does not end, as one with a thread that a disk holds.
const leaver = "OVS_TEST_LEAVER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(leaver); dir != "" {
		leave(dir)
	}
	os.Exit(m.Run())
}

func leave(dir string) {
	fail := func(err error) {
		if err != nil {
			os.Stdout.WriteString("failed: " + err.Error() + "\n")
			os.Exit(1)
		}
	}
	d := New()
	for _, name := range []string{"a", "b", "given"} {
		l, err := d.Lock(filepath.Join(dir, name))
		fail(err)
		if name == "given" {
			fail(l.Close())
		}
	}
	f, err := d.OpenFile(filepath.Join(dir, "file"), disk.Write|disk.Create, 0o600)
	fail(err)
	began := make(chan struct{}, 16)
	for _, change := range []func(i int) error{
		func(i int) error { _, err := f.WriteAt([]byte("x"), int64(i)); return err },
		func(i int) error { _, err := f.WritevAt([][]byte{{'x'}, {'y'}}, int64(i)); return err },
		func(int) error { return f.Datasync() },
		func(int) error {
			g, err := d.OpenFile(filepath.Join(dir, "made"), disk.Write|disk.Create, 0o600)
			return errors.Join(err, g.Close(), d.Rename(filepath.Join(dir, "made"), filepath.Join(dir, "renamed")), d.Remove(filepath.Join(dir, "renamed")))
		},
	} {
		go func() {
			for i := 0; ; i++ {
				fail(change(i))
				if i == 0 {
					began <- struct{}{}
				}
			}
		}()
	}
	for range 4 {
		<-began
	}
	os.Stdout.WriteString("held\n")
	_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	os.Stdout.WriteString("left" + strings.Join(Leave(10*time.Second), " ") + "\n")
	select {}
}

// A process that leaves gives its locks back though it does not end, and changes
// nothing any more.
func TestLeave(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env = append(os.Environ(), leaver+"="+dir)
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	}()
	lines := bufio.NewReader(out)
	next := func(want string) {
		t.Helper()
		if line, err := lines.ReadString('\n'); err != nil || strings.TrimSpace(line) != want {
			t.Fatalf("it says %q, %v, and not %q", line, err, want)
		}
	}
	next("held")
	d := New()
	for _, name := range []string{"a", "b"} {
		if _, err := d.Lock(filepath.Join(dir, name)); !errors.Is(err, disk.ErrLocked) {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	next("left")
	changes := 0
	for _, name := range []string{"a", "b", "given"} {
		l, err := d.Lock(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
	state := func() (size int64, when time.Time, names int) {
		info, err := os.Stat(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size(), info.ModTime(), len(entries)
	}
	// Each of the four may have been on its way into the kernel.
	size, when, names := state()
	for range 2000 {
		s, w, n := state()
		if s != size || !w.Equal(when) || n != names {
			size, when, names = s, w, n
			changes++
		}
	}
	if changes > 4 {
		t.Fatalf("it goes on: %d changes", changes)
	}
	if c.ProcessState != nil {
		t.Fatal("it has ended")
	}
}
