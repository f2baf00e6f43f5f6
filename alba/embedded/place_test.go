package embedded

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"testing"

	"openvstorage/alba/health"
	"openvstorage/internal/disk"
)

// mounts are directories for ASDs outside of the data directory.
func mounts(n int) (list []string) {
	for i := range n {
		list = append(list, fmt.Sprintf("/mnt/%d", i))
	}
	return list
}

// atMounts makes a backend whose disks are at mount points, and fills and closes it.
func atMounts(t *testing.T, fs disk.FS, n int) Options {
	t.Helper()
	must(t, fs.MkdirAll("/mnt", 0o700))
	o := options(fs)
	o.Dirs = mounts(n)
	b, err := Open(ctx, o)
	must(t, err)
	fill(t, b, "ns", 0, 8)
	settled(t, b)
	must(t, b.Close())
	return o
}

// permute has what is at mount point i be at mount point to[i].
func permute(t *testing.T, fs disk.FS, to ...int) {
	t.Helper()
	for i := range to {
		move(t, fs, mounts(len(to))[i], fmt.Sprintf("/moving-%d", i))
	}
	for i, j := range to {
		move(t, fs, fmt.Sprintf("/moving-%d", i), mounts(len(to))[j])
	}
}

// Mount points that have changed places are found by what is on them: with all
// --asd given again, without any, in whatever order, and while it runs.
func TestSwappedMounts(t *testing.T) {
	for _, to := range [][]int{{1, 0, 2}, {0, 2, 1}, {1, 2, 0}, {2, 0, 1}} {
		for _, flags := range []string{"given", "not given", "in another order", "while it runs"} {
			t.Run(fmt.Sprint(to, flags), func(t *testing.T) {
				fs := newDisk(t)
				o := atMounts(t, fs, 3)
				var b *Backend
				var err error
				if flags == "while it runs" {
					for i := range 3 {
						move(t, fs, mounts(3)[i], fmt.Sprintf("/unplugged-%d", i))
					}
					b, err = Open(ctx, o)
					must(t, err)
					for i := range 3 {
						move(t, fs, fmt.Sprintf("/unplugged-%d", i), mounts(3)[to[i]])
					}
					b.ReopenDisks(ctx)
				} else {
					permute(t, fs, to...)
					switch flags {
					case "not given":
						o.Dirs = nil
					case "in another order":
						o.Dirs = []string{mounts(3)[2], mounts(3)[0], mounts(3)[1]}
					}
					b, err = Open(ctx, o)
					must(t, err)
				}
				for i, d := range diskStates(t, b, health.OK, health.OK, health.OK) {
					if d.Dir != mounts(3)[to[i]] {
						t.Errorf("disk %d is said to be in %s", d.Number, d.Dir)
					}
				}
				holds(t, b, "ns", 8)
				fill(t, b, "ns", 8, 12)
				settled(t, b)
				must(t, b.Close())
				// Back as they were, and without flags.
				o.Dirs = nil
				b, err = Open(ctx, o)
				must(t, err)
				settled(t, b)
				holds(t, b, "ns", 12)
				must(t, b.Close())
			})
		}
	}
}

// Disks that move along, one to a new place and another to where that one was, are
// recorded there; and at no moment of it is a place forgotten.
func TestMovedAlong(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	fs := newDisk(t)
	o := atMounts(t, fs, 3)
	move(t, fs, "/mnt/1", "/mnt/new")
	move(t, fs, "/mnt/0", "/mnt/1")
	o.Dirs = []string{"/mnt/1", "/mnt/new", "/mnt/2"}
	again := func(o Options, fs disk.FS) {
		t.Helper()
		o.FS = fs
		b, err := Open(ctx, o)
		must(t, err)
		for i, d := range diskStates(t, b, health.OK, health.OK, health.OK) {
			if d.Dir != o.Dirs[i] {
				t.Errorf("disk %d is said to be in %s", d.Number, d.Dir)
			}
		}
		holds(t, b, "ns", 8)
		must(t, b.Close())
	}
	images := cutDuring(rng, fs, 40, func(fs disk.FS) { again(o, fs) })
	for _, image := range images {
		again(o, image)
	}
	again(o, fs)
	for _, image := range append(images, fs) {
		n := o
		n.FS, n.Dirs = image, nil
		b, err := Open(ctx, n)
		must(t, err)
		diskStates(t, b, health.OK, health.OK, health.OK)
		must(t, b.Close())
	}
}

// With one of two that were swapped not mounted at all, the other is found.
func TestSwappedAndAway(t *testing.T) {
	fs := newDisk(t)
	o := atMounts(t, fs, 3)
	move(t, fs, "/mnt/1", "/away")
	move(t, fs, "/mnt/0", "/mnt/1")
	must(t, fs.MkdirAll("/mnt/0", 0o700)) // a mount point with nothing mounted
	for _, dirs := range [][]string{o.Dirs, nil} {
		o.Dirs = dirs
		b, err := Open(ctx, o)
		must(t, err)
		list := diskStates(t, b, health.OK, health.Missing, health.OK)
		if list[0].Dir != "/mnt/1" {
			t.Errorf("%+v", list[0])
		}
		holds(t, b, "ns", 8)
		must(t, b.Close())
	}
	must(t, fs.RemoveAll("/mnt/0"))
	move(t, fs, "/away", "/mnt/0")
	b, err := Open(ctx, o)
	must(t, err)
	settled(t, b)
	must(t, b.Close())
}

// What cannot be meant is refused: a directory twice, and two that hold one ASD.
func TestPlacesThatContradict(t *testing.T) {
	fs := newDisk(t)
	o := atMounts(t, fs, 3)
	refused := func(word string, dirs ...string) {
		t.Helper()
		o.Dirs = dirs
		if b, err := Open(ctx, o); err == nil {
			t.Errorf("%v were taken", dirs)
			must(t, b.Close())
		} else if !strings.Contains(err.Error(), word) {
			t.Error(err)
		}
	}
	refused("given twice", "/mnt/0", "/mnt/0", "/mnt/1")
	refused("names 2", "/mnt/0", "/mnt/1")
	must(t, fs.MkdirAll("/mnt/3", 0o700))
	refused("none of the 3", "/mnt/0", "/mnt/1", "/mnt/3")
	copied(t, fs, "/mnt/0/identity", "/mnt/3/identity")
	refused("one of them is a copy", "/mnt/0", "/mnt/3", "/mnt/1")
}

func copied(t *testing.T, fs disk.FS, from, to string) {
	t.Helper()
	f, err := fs.OpenFile(from, 0, 0)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	p := make([]byte, size)
	_, err = f.ReadAt(p, 0)
	must(t, err)
	must(t, f.Close())
	g, err := fs.OpenFile(to, disk.Write|disk.Create, 0o600)
	must(t, err)
	_, err = g.WriteAt(p, 0)
	must(t, err)
	must(t, g.Datasync())
	must(t, g.Close())
	must(t, fs.SyncDir(path.Dir(to)))
}
