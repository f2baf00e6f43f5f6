package embedded

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"strconv"
	"strings"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// flips is how many bits of each file are turned, one at a time.
func flips() int {
	if n, err := strconv.Atoi(os.Getenv("OVS_BIT_FLIPS")); err == nil {
		return n
	}
	return 4
}

// A bit that is turned in any file, of a backend that was closed or killed: the
// start refuses with an error that names the file, or all that was put reads
// right and is brought to full width again. One damaged disk never stops the
// start.
func TestBitFlips(t *testing.T) {
	const n = 8
	rng := newRand(t)
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, n)
	settled(t, b)
	holds(t, b, "ns", n)
	killed := mem.Kill()
	must(t, b.Close())
	for kind, image := range map[string]*crashdisk.FS{"closed": mem, "killed": killed} {
		for _, file := range files(t, image, "/data") {
			for range flips() {
				damaged, at := flip(t, rng, image, file)
				if damaged == nil {
					break
				}
				if err := survives(damaged, file, n); err != nil {
					t.Errorf("%s: bit at %d of %s: %v", kind, at, file, err)
				}
			}
		}
	}
}

// survives demands that a backend with one damaged file is right.
func survives(image *crashdisk.FS, file string, n int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	whole := strings.HasPrefix(file, "/data/arakoon/") // there is one copy of it
	b, err := Open(ctx, options(image))
	if err != nil {
		if whole && strings.Contains(err.Error(), path.Dir(file)) {
			return nil
		}
		return fmt.Errorf("start: %w", err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if err := reads(b, n); err != nil {
		if whole && strings.Contains(err.Error(), path.Base(file)) {
			return nil
		}
		return err
	}
	for _, d := range b.fleet.All() {
		if reason := d.Missing(); reason != nil {
			if dir := b.asds.path(d.Place); !strings.HasPrefix(file, dir) || !strings.Contains(reason.Error(), dir) {
				return fmt.Errorf("disk %d is missing: %w", d.Number, reason)
			}
			if err := wipe(image, b.asds.path(d.Place)); err != nil {
				return err
			}
			if _, err := b.ReplaceOSD(ctx, d.Number, ""); err != nil {
				return err
			}
		}
	}
	w := b.Maintenance()
	err = errors.Join(w.ScrubSome(ctx, 10_000), w.FindAbsent(ctx), settledErr(b), reads(b, n))
	if err != nil && whole && strings.Contains(err.Error(), path.Base(file)) {
		return nil
	}
	return err
}

// reads reads every object, twice: the second time the fragment cache answers.
func reads(b *Backend, n int) error {
	for i := range 2 * n {
		p, err := get(b, "ns", i%n)
		if err != nil {
			return fmt.Errorf("object %d: %w", i%n, err)
		}
		if !bytes.Equal(p, data(i%n)) {
			return fmt.Errorf("object %d has other bytes", i%n)
		}
	}
	return nil
}

// wipe is what people do with a directory that they want to use again.
func wipe(fs disk.FS, dir string) error {
	return errors.Join(fs.RemoveAll(dir), fs.SyncDir(path.Dir(dir)))
}

// files are all files below a directory.
func files(t *testing.T, fsys disk.FS, dir string) (list []string) {
	t.Helper()
	names, err := fsys.ReadDir(dir)
	must(t, err)
	for _, name := range names {
		name = path.Join(dir, name)
		info, err := fsys.Stat(name)
		must(t, err)
		if info.IsDir() {
			list = append(list, files(t, fsys, name)...)
		} else {
			list = append(list, name)
		}
	}
	return list
}

// flip turns one bit of a file of a copy of a disk: in its first bytes, in the
// last that are not zero, after those, or anywhere before. It returns nil for an
// empty file.
func flip(t *testing.T, rng *rand.Rand, image *crashdisk.FS, file string) (*crashdisk.FS, int) {
	t.Helper()
	image = image.Kill()
	f, err := image.OpenFile(file, disk.Write, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0
	}
	must(t, err)
	size, err := f.Size()
	must(t, err)
	if size == 0 {
		must(t, f.Close())
		return nil, 0
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	must(t, err)
	end := max(1, len(bytes.TrimRight(b, "\x00")))
	at := rng.IntN(end)
	switch rng.IntN(6) {
	case 0:
		at = rng.IntN(min(end, 64))
	case 1:
		at = end - 1 - rng.IntN(min(end, 64))
	case 2:
		if end < len(b) {
			at = end + rng.IntN(min(len(b)-end, 128))
		}
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1<<rng.IntN(8)}, int64(at))
	must(t, errors.Join(err, f.Datasync(), f.Close()))
	return image, at
}

// A disk that was killed and has a segment whose header cannot be read starts
// without what was in it, parity that nobody reads too. All of it is found absent
// and made again.
func TestLostSegment(t *testing.T) {
	const n = 8
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, n)
	settled(t, b)
	image := mem.Kill()
	must(t, b.Close())
	f, err := image.OpenFile(asdDir(1)+"/0000000000000001.seg", disk.Write, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 4096), 0)
	must(t, errors.Join(err, f.Datasync(), f.Close()))
	b = open(t, image)
	w := b.Maintenance()
	if err := w.Audit(ctx); err == nil {
		t.Error("nothing is absent")
	}
	must(t, w.FindAbsent(ctx))
	settled(t, b)
	must(t, b.Close())
	take(t, image, 0) // what was made again is good
	b = open(t, image)
	holds(t, b, "ns", n)
	must(t, b.Close())
}
