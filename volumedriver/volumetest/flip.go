package volumetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"openvstorage/device"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// BitFlips flips bits in every file below /data, one bit in a run, of a system that was
// closed and of one that was killed. It demands that each read returns the right bytes or
// an error, and that an error of the start names the file.
func BitFlips(t *testing.T, open Opener, flips int) {
	rng := rand.New(rand.NewPCG(Seed(t), 3))
	mem := crashdisk.New()
	s, err := open(mem)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if _, err := s.Host.Create(ctx, "v", diskSize); err != nil {
		t.Fatal(err)
	}
	hist := newHistory(diskSize)
	w := &worker{t: t, rng: rng, host: s.Host, h: hist}
	for range 150 {
		w.step()
	}
	if err := writable(t, s.Host, "v").Flush(ctx); err != nil {
		t.Fatal(err)
	}
	want := hist.after(len(hist.ops))
	killed := mem.Kill()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for kind, image := range map[string]*crashdisk.FS{"closed": mem, "killed": killed} {
		for _, file := range files(t, image, "/data") {
			for range flips {
				damaged, at := flip(t, rng, image, file)
				if damaged == nil {
					break
				}
				n++
				if err := survives(open, damaged, file, want.data); err != nil {
					t.Errorf("%s: bit in byte %d of %s: %v", kind, at, file, err)
				}
			}
		}
	}
	t.Logf("%d flips", n)
}

// survives opens an image with a flipped bit, and reads all of it.
func survives(open Opener, fs disk.FS, file string, want []byte) error {
	named := func(err error) error {
		if err == nil || strings.Contains(err.Error(), path.Base(file)) || strings.Contains(err.Error(), path.Dir(file)) {
			return nil
		}
		return err
	}
	s, err := open(fs)
	if err != nil {
		if err = named(err); err != nil {
			err = fmt.Errorf("start: %w", err)
		}
		return err
	}
	if d, release, e := s.Host.OpenDevice(context.Background(), "v"); e == nil {
		err = compare(d, want)
		release()
	}
	return errors.Join(err, named(s.Close()))
}

// compare reads a vDisk, cluster by cluster where it must.
func compare(d device.Reader, want []byte) error {
	const step = 64 << 10
	got := make([]byte, step)
	for off := 0; off < len(want); off += step {
		if d.Read(context.Background(), got, int64(off)) == nil {
			if !bytes.Equal(got, want[off:off+step]) {
				return fmt.Errorf("wrong bytes at %d", off+diff(got, want[off:off+step]))
			}
			continue
		}
		for at := off; at < off+step; at += 4096 {
			if d.Read(context.Background(), got[:4096], int64(at)) == nil && !bytes.Equal(got[:4096], want[at:at+4096]) {
				return fmt.Errorf("wrong bytes in cluster %d", at/4096)
			}
		}
	}
	return nil
}

// files are all files below a directory.
func files(t *testing.T, fsys disk.FS, dir string) (list []string) {
	t.Helper()
	names, err := fsys.ReadDir(dir)
	for _, name := range names {
		name = path.Join(dir, name)
		info, e := fsys.Stat(name)
		switch {
		case e != nil:
			err = e
		case info.IsDir():
			list = append(list, files(t, fsys, name)...)
		default:
			list = append(list, name)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// flip flips one bit of a file in a copy of a disk, mostly in a byte that is not zero. It
// returns nil for an empty file.
func flip(t *testing.T, rng *rand.Rand, image *crashdisk.FS, file string) (*crashdisk.FS, int) {
	t.Helper()
	image = image.Kill()
	f, err := image.OpenFile(file, disk.Write, 0)
	if err != nil {
		t.Fatal(err)
	}
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	if size == 0 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		return nil, 0
	}
	b := make([]byte, size)
	if _, err = f.ReadAt(b, 0); err != nil {
		t.Fatal(err)
	}
	end := max(1, len(bytes.TrimRight(b, "\x00")))
	at := rng.IntN(end)
	if rng.IntN(4) == 0 {
		at = rng.IntN(min(end, 64))
	}
	_, err = f.WriteAt([]byte{b[at] ^ 1<<rng.IntN(8)}, int64(at))
	if err = errors.Join(err, f.Datasync(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return image, at
}
