package local

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"openvstorage/backend"
	"openvstorage/internal/disk/crashdisk"
)

// outcome is what an object may be: any of these contents, nil being absent.
type outcome [][]byte

// TestCrash cuts the power, or kills the process, before every step of a
// script, and looks at what is left: whatever was acknowledged is there, what
// was under way is there whole or not at all, and once an open has shown
// either, a second power cut does not take it back.
func TestCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	d := crashdisk.New()
	fsys := newStepFS(d)
	s, err := Open(fsys, "objects", Options{})
	must(t, err)
	defer s.Close()
	must(t, s.CreateNamespace(ctx, "ns"))
	ns := s.Namespace("ns")
	may := map[string]outcome{} // of objects in ns
	images := 0
	fsys.step = func(op, name string) error {
		for _, image := range []*crashdisk.FS{
			d.Kill(), d.Crash(rng, crashdisk.KeepAll), d.Crash(rng, crashdisk.LoseAll), d.Crash(rng, crashdisk.Mixed), d.Crash(rng, crashdisk.Torn),
		} {
			images++
			checkImage(t, image, rng, may, fmt.Sprintf("before %s %s", op, name))
		}
		return nil
	}
	versions := map[string]backend.Version{}
	for step := range 60 {
		name := fmt.Sprint("o", rng.IntN(3))
		data := pattern(rng.IntN(3)*4096+rng.IntN(5000), byte(step))
		before := may[name]
		if before == nil {
			before = outcome{nil}
		}
		after := outcome{data}
		may[name] = outcome{before[0], data}
		switch rng.IntN(3) {
		case 0:
			if err := ns.Put(ctx, name, data); errors.Is(err, backend.ErrExists) {
				after = before
			} else {
				must(t, err)
			}
		case 1:
			_, err := ns.PutIf(ctx, name, data, versions[name])
			must(t, err)
		case 2:
			may[name], after = outcome{before[0], nil}, outcome{nil}
			must(t, ns.Delete(ctx, []string{name}, nil))
		}
		may[name] = after
		fi, _ := ns.Stat(ctx, name)
		versions[name] = fi.Version
	}
	if images < 800 {
		t.Errorf("only %d images", images)
	}
}

func checkImage(t *testing.T, image *crashdisk.FS, rng *rand.Rand, may map[string]outcome, when string) {
	t.Helper()
	s, err := Open(image, "objects", Options{})
	must(t, err)
	ns := s.Namespace("ns")
	for name, allowed := range may {
		got := whole(t, ns, name)
		if !allowed.has(got) {
			t.Fatalf("%s: %s holds %d bytes that it must not", when, name, len(got))
		}
		if got == nil {
			must(t, ns.Delete(ctx, []string{name}, nil)) // a retry: now it is durable
		} else {
			must(t, ns.Put(ctx, name, got))
		}
		defer func() {
			again, err := Open(image.Crash(rng, crashdisk.LoseAll), "objects", Options{})
			must(t, err)
			if now := whole(t, again.Namespace("ns"), name); !bytes.Equal(now, got) || (now == nil) != (got == nil) {
				t.Fatalf("%s: %s changed after its retry was acknowledged", when, name)
			}
			again.Close()
		}()
	}
	if left, err := image.ReadDir("objects/.tmp"); err != nil || len(left) != 0 {
		t.Fatalf("%s: left in .tmp: %v, %v", when, left, err)
	}
	must(t, s.Close())
}

func (o outcome) has(b []byte) bool {
	for _, a := range o {
		if (a == nil) == (b == nil) && bytes.Equal(a, b) {
			return true
		}
	}
	return false
}

// whole returns an object's bytes, nil if it is absent.
func whole(t *testing.T, ns backend.Namespace, name string) []byte {
	t.Helper()
	fi, err := ns.Stat(ctx, name)
	if errors.Is(err, backend.ErrNotFound) {
		return nil
	}
	must(t, err)
	p := make([]byte, fi.Size)
	if n, err := ns.Get(ctx, name, p, 0); n != len(p) || err != nil && len(p) > 0 {
		t.Fatalf("get %s: %d of %d bytes, %v", name, n, len(p), err)
	}
	return p
}

// A namespace that was created or deleted stays so, whatever happens then.
func TestNamespaceCrash(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 5))
	d := crashdisk.New()
	fsys := newStepFS(d)
	s, err := Open(fsys, "objects", Options{})
	must(t, err)
	defer s.Close()
	list := func(d *crashdisk.FS) string {
		s, err := Open(d, "objects", Options{})
		must(t, err)
		defer s.Close()
		names, err := s.ListNamespaces(ctx)
		must(t, err)
		return fmt.Sprint(names)
	}
	check := func(want string) {
		t.Helper()
		for _, image := range []*crashdisk.FS{d.Kill(), d.Crash(rng, crashdisk.LoseAll), d.Crash(rng, crashdisk.Mixed)} {
			if got := list(image); got != want {
				t.Fatalf("namespaces %s, want %s", got, want)
			}
		}
	}
	for range 5 {
		must(t, s.CreateNamespace(ctx, "a"))
		check("[a]")
		must(t, s.Namespace("a").Put(ctx, "o", pattern(10, 1)))
		must(t, s.DeleteNamespace(ctx, "a"))
		check("[]")
	}
	s.sweeps.Wait()
	names, err := d.ReadDir("objects")
	if must(t, err); len(names) != 3 { // .lock .store .tmp
		t.Errorf("left: %v", names)
	}
}
