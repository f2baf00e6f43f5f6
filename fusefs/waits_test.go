package fusefs_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"openvstorage/device"
	"openvstorage/fusefs"
	"openvstorage/fusefs/filetree/treetest"
	"openvstorage/fusefs/memtest"
)

// A mount that somebody else takes away ends at once, and an end of it has nothing
// left to do; so it is of one that was taken out of sight while it is in use.
func TestUnmountedByOthers(t *testing.T) {
	for _, flags := range []int{0, unix.MNT_DETACH} {
		needsFUSE(t)
		keys := treetest.New()
		pool := memtest.New(keys)
		check(t, "create", pool.Create(t.Context(), "a", 4096), 0)
		dir := filepath.Join(t.TempDir(), "with blanks\\ and more")
		check(t, "mkdir", os.Mkdir(dir, 0o755), 0)
		f, err := fusefs.Mount(context.Background(), pool, keys, dir, fusefs.Options{Direct: true, Self: true})
		check(t, "mount", err, 0)
		open, err := os.Open(filepath.Join(dir, "a.raw"))
		check(t, "open", err, 0)
		if flags == 0 {
			open.Close()
		}
		check(t, "umount by another", unix.Unmount(dir, flags), 0)
		if flags == 0 {
			f.Wait()
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		check(t, "unmount", f.Unmount(ctx), 0)
		if ctx.Err() != nil {
			t.Error("it was tried until the time was over")
		}
		cancel()
		check(t, "keep", f.Keep(t.Context()), 0)
		open.Close()
		f.Wait()
	}
}

// While a clone waits, for a backend that is away, all can be looked at, the file
// that becomes the clone too; others work; and whoever waits goes when it is killed.
func TestCloneWaits(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "write", os.WriteFile(at("a.raw"), make([]byte, 64<<10), 0o600), 0)
		check(t, "mkdir", os.Mkdir(at("d"), 0o755), 0)
		over := pool.HoldClones()
		defer over()
		cp := exec.Command("cp", at("a.raw"), at("b.raw"))
		check(t, "cp", cp.Start(), 0)
		until(t, func() bool { _, err := os.Stat(at("b.raw")); return err == nil && pool.Cloning() == 1 })
		within := func(what string, fn func()) {
			t.Helper()
			done := make(chan struct{})
			go func() {
				defer close(done)
				fn()
			}()
			select {
			case <-done:
			case <-time.After(20 * time.Second):
				t.Fatalf("%s: it waits", what)
			}
		}
		within("ls -l", func() {
			if out, err := exec.Command("ls", "-lR", dir).CombinedOutput(); err != nil {
				t.Errorf("ls: %v: %s", err, out)
			}
		})
		within("stat", func() { statx(t, at("b.raw")) })
		within("create", func() { check(t, "create", os.WriteFile(at("d/c.raw"), make([]byte, 4096), 0o600), 0) })
		within("unlink", func() { check(t, "unlink", os.Remove(at("d/c.raw")), 0) })
		within("mv of a directory", func() {
			check(t, "mv", os.Rename(at("d"), at("e")), 0)
			check(t, "mv back", os.Rename(at("e"), at("d")), 0)
		})
		within("write", func() {
			f, err := os.OpenFile(at("a.raw"), os.O_RDWR, 0)
			check(t, "open", err, 0)
			defer f.Close()
			_, err = f.WriteAt([]byte("x"), 0)
			check(t, "write", err, 0)
		})
		// These wait for the clone, and for nothing else.
		for _, c := range [][]string{
			{"cat", at("b.raw")}, {"chmod", "640", at("b.raw")}, {"truncate", "-s", "4096", at("b.raw")},
		} {
			p := exec.Command(c[0], c[1:]...)
			check(t, c[0], p.Start(), 0)
			time.Sleep(50 * time.Millisecond) // so that it waits, or is done
			check(t, "kill", p.Process.Kill(), 0)
			within("kill of "+c[0], func() { _ = p.Wait() })
		}
		within("create beside those that were killed", func() { check(t, "create", os.WriteFile(at("f.raw"), make([]byte, 4096), 0o600), 0) })
		check(t, "kill", cp.Process.Kill(), 0)
		within("kill of cp", func() { _ = cp.Wait() })
		if pool.Cloning() != 0 {
			t.Error("the clone goes on")
		}
	})
}

// Whoever empties a file whose vDisk may have been deleted, as nobody answered, and is
// killed while it is opened again, goes. The file is whole, to those who have it open
// too, and can be emptied.
func TestEmptyingIsGivenUp(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		name := filepath.Join(dir, "a.raw")
		data := bytes.Repeat([]byte("whole"), 4096)[:8192]
		check(t, "write", os.WriteFile(name, data, 0o600), 0)
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		check(t, "open", err, 0)
		pool.DoubtDelete(false)
		over := pool.HoldOpens()
		p := exec.Command("truncate", "-s", "0", name)
		check(t, "truncate", p.Start(), 0)
		until(t, func() bool { return pool.Opening() == 1 })
		check(t, "kill", p.Process.Kill(), 0)
		gone := make(chan struct{})
		go func() {
			defer close(gone)
			_ = p.Wait()
		}()
		select {
		case <-gone:
		case <-time.After(20 * time.Second):
			t.Error("it waits, though it was killed")
		}
		over()
		<-gone
		if i, err := os.Stat(name); err != nil || i.Size() != int64(len(data)) {
			t.Errorf("afterwards: %v, %v", i, err)
		}
		got := make([]byte, len(data))
		_, err = f.ReadAt(got, 0)
		check(t, "read of the file that is open", err, 0)
		if !bytes.Equal(got, data) {
			t.Error("the file that is open has other bytes")
		}
		_, err = f.WriteAt([]byte("W"), 0)
		check(t, "write of the file that is open", err, 0)
		check(t, "sync", f.Sync(), 0)
		check(t, "close", f.Close(), 0)
		data[0] = 'W'
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, data) {
			t.Errorf("opened again: other bytes, or %v", err)
		}
		check(t, "truncate again", os.Truncate(name, 0), 0)
		if i, err := os.Stat(name); err != nil || i.Size() != 0 {
			t.Errorf("emptied: %v, %v", i, err)
		}
	})
	remount(t, pool, keys, func(dir string) {
		if i, err := os.Stat(filepath.Join(dir, "a.raw")); err != nil || i.Size() != 0 {
			t.Errorf("after a restart: %v, %v", i, err)
		}
	})
}

// What tools make of a vDisk that has holes: what is allocated is what they find, no
// byte differs, and in the mount cp makes a clone of it.
func TestSparse(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		disk, out := filepath.Join(dir, "a.raw"), t.TempDir()
		check(t, "create", pool.Create(t.Context(), "a", 8<<20), 0)
		blocks := func(name string) int64 {
			t.Helper()
			return int64(statx(t, name).Blocks) * 512
		}
		if got := blocks(disk); got != 0 {
			t.Errorf("new: %d bytes", got)
		}
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		check(t, "open", err, 0)
		defer f.Close()
		for _, off := range []int64{0, 1 << 20, 5<<20 + 4096} {
			_, err = f.WriteAt([]byte("written"), off)
			check(t, "write", err, 0)
		}
		if got := blocks(disk); got != 3*4096 {
			t.Errorf("%d bytes are allocated", got)
		}
		if got, size := blocks(filepath.Join(dir)), int64(0); got != size {
			t.Errorf("directory: %d bytes", got)
		}
		for _, tool := range [][]string{
			{"cp", "--sparse=auto", disk, filepath.Join(out, "cp.raw")},
			{"cp", "--sparse=always", disk, filepath.Join(out, "cpalways.raw")},
			{"sh", "-c", `tar -S -C "$1" -cf "$2/a.tar" a.raw && mkdir "$2/tar" && tar -C "$2/tar" -xf "$2/a.tar"`, "sh", dir, out},
		} {
			if said, err := exec.Command(tool[0], tool[1:]...).CombinedOutput(); err != nil {
				t.Fatalf("%v: %v: %s", tool, err, said)
			}
		}
		for _, name := range []string{"cp.raw", "cpalways.raw", "tar/a.raw"} {
			copied := filepath.Join(out, name)
			same(t, disk, copied)
			if got := blocks(copied); got > 1<<20 {
				t.Errorf("%s takes %d bytes", name, got)
			}
		}
		if i, err := os.Stat(filepath.Join(out, "a.tar")); err != nil || i.Size() > 1<<20 {
			t.Errorf("archive: %v, %v", i.Size(), err)
		}
		if said, err := exec.Command("du", "-B1", disk).Output(); err != nil || string(said[:6]) != "12288\t" {
			t.Errorf("du: %q, %v", said, err)
		}
		check(t, "snapshot", pool.Snapshot(t.Context(), "a", "s"), 0)
		check(t, "mkdir", os.Mkdir(filepath.Join(dir, "d"), 0o755), 0)
		for i, c := range []struct {
			from, to string
			clones   int
		}{
			{"a.raw", "b.raw", 1},
			{"a.raw", "b.raw", 1}, // over what is there: its pieces
			{".snapshots/a/s.raw", "c.raw", 2},
			{"a.raw", "d/", 3},
		} {
			to := filepath.Join(dir, c.to)
			if said, err := exec.Command("cp", filepath.Join(dir, c.from), to).CombinedOutput(); err != nil {
				t.Fatalf("cp: %v: %s", err, said)
			}
			if strings.HasSuffix(c.to, "/") {
				to = filepath.Join(to, c.from)
			}
			same(t, disk, to)
			if pool.Clones() != c.clones {
				t.Errorf("cp %d: %d clones", i, pool.Clones())
			}
		}
		check(t, "punch", unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, 8<<20), 0)
		if got := blocks(disk); got != 0 {
			t.Errorf("%d bytes are allocated when all is a hole", got)
		}
	})
}

// same compares two files.
func same(t *testing.T, a, b string) {
	t.Helper()
	if out, err := exec.Command("cmp", a, b).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// rsync -a and incremental tar see a vDisk that others wrote to.
func TestBackupsSeeWritesOfOthers(t *testing.T) {
	for _, tool := range []string{"rsync", "tar"} {
		t.Run(tool, func(t *testing.T) {
			if _, err := exec.LookPath(tool); err != nil {
				t.Skip("needs ", tool)
			}
			keys := treetest.New()
			pool := memtest.New(keys)
			check(t, "create", pool.Create(t.Context(), "d/a", 1<<20), 0)
			check(t, "create", pool.Create(t.Context(), "d/same", 1<<20), 0)
			remount(t, pool, keys, func(dir string) {
				out := t.TempDir()
				backup := func(round string) string {
					c := exec.Command("rsync", "-a", "-i", filepath.Join(dir, "d")+"/", filepath.Join(out, "to"))
					if tool == "tar" {
						c = exec.Command("tar", "-C", dir, "-cvf", filepath.Join(out, round), "--listed-incremental="+filepath.Join(out, "list"), "d")
					}
					said, err := c.CombinedOutput()
					if err != nil {
						t.Fatalf("%v: %s", err, said)
					}
					return string(said)
				}
				backup("0")
				time.Sleep(1100 * time.Millisecond) // tools may tell seconds apart, no less
				check(t, "write", pool.Get("d/a").Write(t.Context(), []device.Span{{Off: 4096, Data: []byte("theirs")}}), 0)
				_ = statx(t, filepath.Join(dir, "d/a.raw"))
				said := backup("1")
				if !strings.Contains(said, "a.raw") || strings.Contains(said, "same.raw") {
					t.Errorf("it copies %q", said)
				}
			})
		})
	}
}

// While a directory's renaming waits until it is known what became of a vDisk below it,
// the mount's tree can be changed.
func TestRenamingWaits(t *testing.T) {
	keys := treetest.New()
	pool := memtest.New(keys)
	remount(t, pool, keys, func(dir string) {
		at := func(name string) string { return filepath.Join(dir, name) }
		check(t, "mkdir", os.Mkdir(at("d"), 0o755), 0)
		check(t, "write", os.WriteFile(at("d/a.raw"), make([]byte, 4096), 0o600), 0)
		check(t, "write", os.WriteFile(at("small"), []byte("before"), 0o600), 0)
		over, waiting := pool.HoldSettling()
		moved := make(chan error, 1)
		go func() { moved <- os.Rename(at("d"), at("e")) }()
		until(t, func() bool { return waiting() == 1 })
		changed := make(chan error, 1)
		go func() { changed <- os.WriteFile(at("small"), []byte("after"), 0o600) }()
		select {
		case err := <-changed:
			check(t, "write of a small file", err, 0)
		case <-time.After(20 * time.Second):
			t.Error("a write of a small file waits for the renaming")
		}
		over()
		check(t, "mv", <-moved, 0)
		if _, err := os.Stat(at("e/a.raw")); err != nil {
			t.Error(err)
		}
	})
}
