package crashdisk

import (
	"math/rand/v2"
	"testing"

	"openvstorage/internal/disk"
)

func write(t *testing.T, d *FS, name, text string) {
	t.Helper()
	f, err := d.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func text(t *testing.T, d *FS, name string) string {
	t.Helper()
	f, err := d.OpenFile(name, 0, 0)
	if err != nil {
		return err.Error()
	}
	b := make([]byte, 100)
	n, _ := f.ReadAt(b, 0)
	return string(b[:n])
}

// A copy is durable at once, in place of what had the name, and shares nothing
// with what it was copied from.
func TestCopy(t *testing.T) {
	from, to := New(), New()
	if err := from.MkdirAll("/a/b", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, from, "/a/b/f", "copied")
	if err := to.MkdirAll("/c", 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, to, "/c/old", "old")
	if err := to.Copy("/c", from, "/a"); err != nil {
		t.Fatal(err)
	}
	write(t, from, "/a/b/f", "later.")
	for _, d := range []*FS{to, to.Kill(), to.Crash(rand.New(rand.NewPCG(1, 1)), LoseAll)} {
		if got := text(t, d, "/c/b/f"); got != "copied" {
			t.Errorf("the copy holds %q", got)
		}
		if _, err := d.Stat("/c/old"); err == nil {
			t.Error("what had the name is there still")
		}
	}
	write(t, to, "/c/b/f", "mine")
	if got := text(t, from, "/a/b/f"); got != "later." {
		t.Errorf("a write to the copy makes the original %q", got)
	}
	if to.Copy("/x/y", from, "/a") == nil || to.Copy("/", from, "/a") == nil || to.Copy("/z", from, "/none") == nil {
		t.Error("a copy from or to nowhere")
	}
}
