package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"openvstorage/alba/manifest"
	"openvstorage/backend"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
)

// cuts is how many cuts each test takes, or about that.
func cuts() int {
	if n, err := strconv.Atoi(os.Getenv("OVS_POWER_CUTS")); err == nil {
		return n / 4
	}
	return 25
}

func eachImage(t *testing.T, images []*crashdisk.FS, do func(t *testing.T, image *crashdisk.FS)) {
	t.Helper()
	if len(images) < cuts()/3 {
		t.Errorf("only %d images", len(images))
	}
	for i, image := range images {
		t.Run(strconv.Itoa(i), func(t *testing.T) { do(t, image) })
		if t.Failed() {
			return
		}
	}
}

func newRand(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if s := os.Getenv("OVS_TEST_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	t.Logf("OVS_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 5))
}

// A first start that is cut short is gone on with by the next.
func TestFirstStartCut(t *testing.T) {
	images := cutDuring(newRand(t), newDisk(t), cuts(), func(fs disk.FS) {
		b := open(t, fs)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		fill(t, b, "ns", 0, 4)
		settled(t, b)
		if s, err := b.Status(ctx); err != nil || s.Disks != DefaultASD || s.MayDie != 1 {
			t.Errorf("%+v, %v", s, err)
		}
		must(t, b.Close())
		b = open(t, image)
		holds(t, b, "ns", 4)
		must(t, b.Close())
	})
}

// A replacement of a disk that is cut short is asked for again.
func TestReplaceCut(t *testing.T) {
	const n = 12
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, n)
	must(t, b.Close())
	take(t, mem, 1)
	images := cutDuring(newRand(t), mem, cuts(), func(fs disk.FS) {
		b := open(t, fs)
		_, err := b.ReplaceOSD(ctx, 2, "")
		must(t, err)
		settled(t, b)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		if b.fleet.Disk(2) != nil {
			_, err := b.ReplaceOSD(ctx, 2, "")
			must(t, err)
		}
		settled(t, b)
		holds(t, b, "ns", n)
		must(t, b.Close())
	})
}

// Adding a disk that is cut short is asked for again.
func TestAddCut(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 4)
	must(t, b.Close())
	images := cutDuring(newRand(t), mem, cuts(), func(fs disk.FS) {
		b := open(t, fs)
		_, err := b.AddOSD(ctx, "")
		must(t, err)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		if len(b.fleet.All()) == DefaultASD {
			_, err := b.AddOSD(ctx, "")
			must(t, err)
			if _, err := image.Stat(asdDir(4)); err == nil {
				t.Error("what the cut left is not gone on with")
			}
		}
		settled(t, b)
		if s, err := b.Status(ctx); err != nil || s.Disks != DefaultASD+1 {
			t.Errorf("%+v, %v", s, err)
		}
		holds(t, b, "ns", 4)
		must(t, b.Close())
	})
}

// Repair of what was put while a disk was away, cut short: nothing is lost, and
// no orphan stays.
func TestRepairCut(t *testing.T) {
	const n = 12
	mem := newDisk(t)
	must(t, open(t, mem).Close())
	take(t, mem, 0)
	b := open(t, mem)
	fill(t, b, "ns", 0, n)
	must(t, b.Close())
	back(t, mem, 0)
	images := cutDuring(newRand(t), mem, cuts(), func(fs disk.FS) {
		b := open(t, fs)
		settled(t, b)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		holds(t, b, "ns", n)
		settled(t, b)
		holds(t, b, "ns", n)
		must(t, b.Close())
	})
}

// Deletion of a namespace, cut short: it is there whole or it is gone, and in
// the end its fragments are gone too.
func TestDeleteCut(t *testing.T) {
	const n = 12
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "stays", 0, n)
	fill(t, b, "goes", 0, n)
	must(t, b.Close())
	images := cutDuring(newRand(t), mem, cuts(), func(fs disk.FS) {
		b := open(t, fs)
		must(t, b.DeleteNamespace(ctx, "goes"))
		settled(t, b)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		switch _, err := get(b, "goes", 2); {
		case err == nil:
			holds(t, b, "goes", n)
			must(t, b.DeleteNamespace(ctx, "goes"))
		case !errors.Is(err, backend.ErrNamespaceNotFound):
			t.Error(err)
		}
		settled(t, b)
		holds(t, b, "stays", n)
		if err := empty(b, 2); err != nil {
			t.Error(err)
		}
		// The name is free again.
		fill(t, b, "goes", 0, 3)
		holds(t, b, "goes", 3)
		must(t, b.Close())
	})
}

// empty demands that namespace number ns has no fragment on any disk.
func empty(b *Backend, ns uint64) error {
	for _, d := range b.fleet.All() {
		list, err := d.Range(ctx, []byte{0}, nil, 10_000)
		if err != nil {
			return err
		}
		for _, i := range list {
			k, err := manifest.ParseKey(i.Key)
			if r, e := manifest.ParseRecoveryKey(i.Key); e == nil {
				if k, err = r, nil; r.Inline() {
					continue // those are collected, not listed
				}
			}
			if err != nil || k.Namespace == ns {
				return fmt.Errorf("disk %d has %v of namespace %d: %v", d.Number, k, ns, err)
			}
		}
	}
	return nil
}

// Puts and deletes of objects, cut short: what was acknowledged is there.
func TestPutCut(t *testing.T) {
	mem := newDisk(t)
	b := open(t, mem)
	fill(t, b, "ns", 0, 4)
	must(t, b.Close())
	images := cutDuring(newRand(t), mem, cuts(), func(fs disk.FS) {
		b := open(t, fs)
		fill(t, b, "ns", 4, 20)
		for i := 10; i < 20; i++ {
			must(t, b.Namespace("ns").Delete(ctx, []string{name(i)}, nil))
		}
		settled(t, b)
		must(t, b.Close())
	})
	eachImage(t, images, func(t *testing.T, image *crashdisk.FS) {
		b := open(t, image)
		holds(t, b, "ns", 4)
		settled(t, b)
		holds(t, b, "ns", 4)
		// Whatever was there is whole, and may be put again by the same writer.
		fill(t, b, "ns", 4, 20)
		holds(t, b, "ns", 20)
		settled(t, b)
		must(t, b.Close())
	})
}
