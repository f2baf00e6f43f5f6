package writebuffer

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/disktest"
	"openvstorage/internal/disk/faultdisk"
)

// A file that is closed behind its user's back is like any other. In the suite each
// file is settled at once, and one may be open.
func TestOpenFilesConformance(t *testing.T) {
	disktest.Run(t, func(t *testing.T) (disk.FS, string) { return newOpenFiles(crashdisk.New(), 1000), "/" })
}

// Many read 40 files of which 4 may be open, others settle them meanwhile: the bytes
// are right, and no more are open than are being read.
func TestOpenFilesAgainstModel(t *testing.T) {
	const files, most, readers, size = 40, 4, 6, 1000
	under := faultdisk.NewDescriptors(crashdisk.New(), most+readers+2)
	o := newOpenFiles(under, most)
	list := make([]disk.File, files)
	content := func(i int) []byte { return bytes.Repeat([]byte{byte(i)}, size) }
	for i := range list {
		f, err := o.OpenFile(fmt.Sprintf("/%d", i), disk.Write|disk.Create|disk.Truncate, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(content(i), 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Datasync(); err != nil {
			t.Fatal(err)
		}
		settle(f)
		list[i] = f
	}
	var all sync.WaitGroup
	for n := range readers {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(n), 1))
			p := make([]byte, size)
			for range 3000 {
				i := rng.IntN(files)
				_, err := list[i].TryReadAt(p, 0)
				if err != nil {
					_, err = list[i].ReadAt(p, 0)
				}
				if err != nil || !bytes.Equal(p, content(i)) {
					t.Errorf("file %d: %v, or other bytes", i, err)
					return
				}
				if rng.IntN(10) == 0 {
					settle(list[i])
				}
			}
		})
	}
	all.Wait()
	if peak, refused := under.Peak(); refused > 0 {
		t.Errorf("at most %d open, %d calls refused", peak, refused)
	}
	o.makeRoom()
	if n := o.count(); n >= most+1 {
		t.Errorf("%d are open when nobody reads, of %d", n, most)
	}
	for _, f := range list {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}
	if under.Open() != 0 {
		t.Errorf("%d are left open", under.Open())
	}
}

// A file with bytes that no sync has made durable stays open: an error of writing
// it back would be told to nobody (P6).
func TestUnsyncedFilesStayOpen(t *testing.T) {
	under := faultdisk.NewDescriptors(crashdisk.New(), 100)
	o := newOpenFiles(under, 1)
	for i := range 5 {
		f, err := o.OpenFile(fmt.Sprintf("/%d", i), disk.Write|disk.Create, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte("x"), 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			settle(f)
			_ = f.Close()
		})
	}
	if o.reserve(1) || under.Open() != 5 {
		t.Errorf("a place is free, or only %d of 5 files are open", under.Open())
	}
}
