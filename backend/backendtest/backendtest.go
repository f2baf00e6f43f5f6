// Package backendtest is the conformance suite of package backend. It holds what every
// store, and every decorator of one, must do.
package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"openvstorage/backend"
)

// TestStore runs the suite. open returns a new, empty store for each test and
// closes it with t.Cleanup if it must be closed.
func TestStore(t *testing.T, open func(t *testing.T) backend.Store) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, backend.Store)
	}{
		{"Namespaces", namespaces},
		{"Names", names},
		{"PutIsCreateOnly", putIsCreateOnly},
		{"PutRace", putRace},
		{"Get", get},
		{"PutIf", putIf},
		{"PutIfRace", putIfRace},
		{"VersionsNeverRepeat", versionsNeverRepeat},
		{"Delete", del},
		{"DeleteRace", deleteRace},
		{"List", list},
		{"BuffersAreTheCallers", buffers},
		{"Cancelled", cancelled},
		{"Usage", usage},
		{"Model", model},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

var ctx = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got %v, want %v", what, err, target)
	}
}

// create makes a namespace and returns its handle.
func create(t *testing.T, s backend.Store, name string) backend.Namespace {
	t.Helper()
	must(t, s.CreateNamespace(ctx, name))
	return s.Namespace(name)
}

// pattern returns n bytes that differ from place to place and by seed.
func pattern(n int, seed uint64) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		v := r.Uint64()
		for j := range 8 {
			b[i+j] = byte(v >> (8 * j))
		}
	}
	return b[:n]
}

// content returns the whole object.
func content(t *testing.T, ns backend.Namespace, name string) []byte {
	t.Helper()
	fi, err := ns.Stat(ctx, name)
	must(t, err)
	p := make([]byte, fi.Size)
	n, err := ns.Get(ctx, name, p, 0)
	if err != nil && !(err == io.EOF && len(p) == 0) || n != len(p) {
		t.Fatalf("get %s: %d of %d bytes, %v", name, n, len(p), err)
	}
	return p
}

func namespaces(t *testing.T, s backend.Store) {
	got, err := s.ListNamespaces(ctx)
	if err != nil || len(got) != 0 {
		t.Errorf("a new store lists %v, %v", got, err)
	}
	for _, name := range []string{"b", "a", "c-1.2"} {
		create(t, s, name)
		want(t, "create again", s.CreateNamespace(ctx, name), backend.ErrNamespaceExists)
		must(t, s.Namespace(name).Put(ctx, "o", []byte(name)))
	}
	if got, err := s.ListNamespaces(ctx); err != nil || !slices.Equal(got, []string{"a", "b", "c-1.2"}) {
		t.Errorf("list: %v, %v", got, err)
	}
	must(t, s.DeleteNamespace(ctx, "b"))
	want(t, "delete again", s.DeleteNamespace(ctx, "b"), backend.ErrNamespaceNotFound)
	if got, err := s.ListNamespaces(ctx); err != nil || !slices.Equal(got, []string{"a", "c-1.2"}) {
		t.Errorf("list: %v, %v", got, err)
	}
	gone(t, s.Namespace("b"))
	gone(t, s.Namespace("never"))
	if string(content(t, s.Namespace("a"), "o")) != "a" {
		t.Error("another namespace's object changed")
	}
	// A namespace made again under the name has nothing of the old one.
	create(t, s, "b")
	_, err = s.Namespace("b").Stat(ctx, "o")
	want(t, "old object", err, backend.ErrNotFound)
}

// gone checks that every call on ns returns ErrNamespaceNotFound.
func gone(t *testing.T, ns backend.Namespace) {
	t.Helper()
	_, err := ns.Get(ctx, "o", make([]byte, 1), 0)
	want(t, "get", err, backend.ErrNamespaceNotFound)
	_, err = ns.Stat(ctx, "o")
	want(t, "stat", err, backend.ErrNamespaceNotFound)
	_, err = ns.PutIf(ctx, "o", nil, 0)
	want(t, "put if", err, backend.ErrNamespaceNotFound)
	want(t, "put", ns.Put(ctx, "o", nil), backend.ErrNamespaceNotFound)
	want(t, "delete", ns.Delete(ctx, []string{"o"}, nil), backend.ErrNamespaceNotFound)
	want(t, "list", ns.List(ctx, "", func(backend.Info) bool { return true }), backend.ErrNamespaceNotFound)
}

func names(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	good := []string{"a", "0", "-", "a..b", "sco-000000001", strings.Repeat("z", 200)}
	for _, name := range good {
		must(t, ns.Put(ctx, name, []byte(name)))
		if string(content(t, ns, name)) != name {
			t.Errorf("%q holds another's bytes", name)
		}
	}
	for _, name := range []string{"", ".", "..", ".a", "A", "a/b", "a b", "a_b", "ä", "a\x00", strings.Repeat("z", 201)} {
		want(t, "create namespace "+name, s.CreateNamespace(ctx, name), backend.ErrName)
		want(t, "put "+name, ns.Put(ctx, name, nil), backend.ErrName)
		_, err := ns.PutIf(ctx, name, nil, 0)
		want(t, "put if "+name, err, backend.ErrName)
		_, err = ns.Get(ctx, name, nil, 0)
		want(t, "get "+name, err, backend.ErrName)
		_, err = ns.Stat(ctx, name)
		want(t, "stat "+name, err, backend.ErrName)
		want(t, "delete "+name, ns.Delete(ctx, []string{"a", name}, nil), backend.ErrName)
		want(t, "delete if "+name, ns.Delete(ctx, []string{"a"}, &backend.Condition{Name: name}), backend.ErrName)
	}
	if string(content(t, ns, "a")) != "a" {
		t.Error("a refused delete removed something")
	}
}

func putIsCreateOnly(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	for _, size := range []int{0, 1, 4096, 5000, 300_000} {
		name := fmt.Sprint("o", size)
		data := pattern(size, 1)
		must(t, ns.Put(ctx, name, data))
		before, err := ns.Stat(ctx, name)
		must(t, err)
		must(t, ns.Put(ctx, name, data)) // a retry
		want(t, "longer", ns.Put(ctx, name, pattern(size+1, 1)), backend.ErrExists)
		if size > 0 {
			want(t, "shorter", ns.Put(ctx, name, data[:size-1]), backend.ErrExists)
			other := bytes.Clone(data)
			other[size-1] ^= 1
			want(t, "other bytes", ns.Put(ctx, name, other), backend.ErrExists)
		}
		if after, err := ns.Stat(ctx, name); err != nil || after != before || after.Size != int64(size) || after.Name != name || after.Version == 0 {
			t.Errorf("stat: %+v then %+v, %v", before, after, err)
		}
		if !bytes.Equal(content(t, ns, name), data) {
			t.Errorf("%s: other bytes", name)
		}
	}
}

// parallel runs fn n times at once and returns the errors.
func parallel(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { errs[i] = fn(i) })
	}
	wg.Wait()
	return errs
}

// Of several puts of one name exactly one's bytes win; all puts of those
// bytes succeed and all others fail.
func putRace(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	for round := range 8 {
		name := fmt.Sprint("o", round)
		errs := parallel(8, func(i int) error { return ns.Put(ctx, name, pattern(20_000, uint64(i%3))) })
		got, winners := content(t, ns, name), 0
		for i, err := range errs {
			if bytes.Equal(got, pattern(20_000, uint64(i%3))) {
				must(t, err)
				winners++
			} else {
				want(t, "loser", err, backend.ErrExists)
			}
		}
		if winners == 0 {
			t.Fatal("the object holds nobody's bytes")
		}
	}
}

func get(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	_, err := ns.Get(ctx, "absent", make([]byte, 1), 0)
	want(t, "absent", err, backend.ErrNotFound)
	_, err = ns.Stat(ctx, "absent")
	want(t, "absent", err, backend.ErrNotFound)
	for _, size := range []int{0, 1, 4095, 4096, 4097, 70_000, 1<<20 + 77} {
		name := fmt.Sprint("o", size)
		data := pattern(size, 2)
		must(t, ns.Put(ctx, name, data))
		offsets := []int{0, 1, 4095, 4096, 4097, 8192, size / 2, size - 4097, size - 1, size, size + 1, size + 10_000}
		for _, off := range offsets {
			for _, n := range []int{0, 1, 100, 4096, 8192, 12_288, 300_000, size} {
				if off >= 0 {
					getOne(t, ns, name, data, off, n)
				}
			}
		}
		if _, err := ns.Get(ctx, name, make([]byte, 1), -1); err == nil {
			t.Error("a negative offset is accepted")
		}
	}
}

func getOne(t *testing.T, ns backend.Namespace, name string, data []byte, off, n int) {
	t.Helper()
	p := make([]byte, n, n+1)
	p[:n+1][n] = 0xee
	expect := data[min(off, len(data)):min(off+n, len(data))]
	got, err := ns.Get(ctx, name, p, int64(off))
	if got != len(expect) || !bytes.Equal(p[:got], expect) || p[:n+1][n] != 0xee {
		t.Fatalf("%s [%d, +%d): %d bytes, or wrong ones", name, off, n, got)
	}
	if short := got < n; short && err != io.EOF || !short && err != nil {
		t.Fatalf("%s [%d, +%d): %d bytes, error %v", name, off, n, got, err)
	}
}

func putIf(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	_, err := ns.PutIf(ctx, "c", []byte("x"), 5)
	want(t, "replace what is absent", err, backend.ErrConflict)
	_, err = ns.Stat(ctx, "c")
	want(t, "after a conflict", err, backend.ErrNotFound)
	seen := map[backend.Version]bool{0: true}
	var v backend.Version
	for i := range 20 {
		data := pattern(100*i, uint64(i)) // from none to several blocks
		next, err := ns.PutIf(ctx, "c", data, v)
		must(t, err)
		if seen[next] {
			t.Fatalf("version %d again", next)
		}
		seen[next] = true
		for _, stale := range []backend.Version{0, v, next + 1} {
			if _, err := ns.PutIf(ctx, "c", []byte("stale"), stale); !errors.Is(err, backend.ErrConflict) {
				t.Fatalf("put at version %d, which is not %d: %v", stale, next, err)
			}
		}
		if fi, err := ns.Stat(ctx, "c"); err != nil || fi.Version != next || fi.Size != int64(len(data)) {
			t.Fatalf("stat: %+v, %v", fi, err)
		}
		if !bytes.Equal(content(t, ns, "c"), data) {
			t.Fatal("get returns other bytes than were put last")
		}
		v = next
	}
	want(t, "put over it", ns.Put(ctx, "c", []byte("x")), backend.ErrExists)
	// What Put made can be replaced too.
	must(t, ns.Put(ctx, "d", []byte("one")))
	fi, err := ns.Stat(ctx, "d")
	must(t, err)
	_, err = ns.PutIf(ctx, "d", []byte("two"), fi.Version)
	must(t, err)
	if string(content(t, ns, "d")) != "two" {
		t.Error("d was not replaced")
	}
}

// Of several conditional puts at one version exactly one wins.
func putIfRace(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	var v backend.Version
	for range 10 {
		versions := make([]backend.Version, 6)
		errs := parallel(len(versions), func(i int) (err error) {
			versions[i], err = ns.PutIf(ctx, "c", []byte{byte(i)}, v)
			return err
		})
		winner := -1
		for i, err := range errs {
			switch {
			case err == nil && winner < 0:
				winner = i
			case err == nil:
				t.Fatal("two winners")
			default:
				want(t, "loser", err, backend.ErrConflict)
			}
		}
		if winner < 0 {
			t.Fatal("no winner")
		}
		v = versions[winner]
		if got := content(t, ns, "c"); !bytes.Equal(got, []byte{byte(winner)}) {
			t.Fatalf("it holds %v, the winner is %d", got, winner)
		}
	}
}

func versionsNeverRepeat(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	seen := map[backend.Version]bool{0: true}
	for i := range 10 {
		if i%2 == 0 {
			must(t, ns.Put(ctx, "o", []byte("same")))
		} else {
			_, err := ns.PutIf(ctx, "o", []byte("same"), 0)
			must(t, err)
		}
		fi, err := ns.Stat(ctx, "o")
		must(t, err)
		if seen[fi.Version] {
			t.Fatalf("version %d again", fi.Version)
		}
		seen[fi.Version] = true
		must(t, ns.Delete(ctx, []string{"o"}, &backend.Condition{Name: "o", Version: fi.Version}))
	}
}

func del(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	for _, name := range []string{"a", "b", "c", "d"} {
		must(t, ns.Put(ctx, name, pattern(5000, 3)))
		content(t, ns, name) // so that it is in whatever cache there is
	}
	v, err := ns.PutIf(ctx, "catalog", []byte("1"), 0)
	must(t, err)
	must(t, ns.Delete(ctx, nil, nil))
	must(t, ns.Delete(ctx, []string{"a", "absent"}, nil))
	must(t, ns.Delete(ctx, []string{"a"}, nil))
	want(t, "stale", ns.Delete(ctx, []string{"b"}, &backend.Condition{Name: "catalog", Version: v + 1}), backend.ErrConflict)
	want(t, "absent", ns.Delete(ctx, []string{"b"}, &backend.Condition{Name: "none", Version: 1}), backend.ErrConflict)
	want(t, "not absent", ns.Delete(ctx, []string{"b"}, &backend.Condition{Name: "catalog"}), backend.ErrConflict)
	must(t, ns.Delete(ctx, []string{"c"}, &backend.Condition{Name: "catalog", Version: v}))
	must(t, ns.Delete(ctx, []string{"d"}, &backend.Condition{Name: "none"}))
	for name, there := range map[string]bool{"a": false, "b": true, "c": false, "d": false, "catalog": true} {
		_, err := ns.Get(ctx, name, make([]byte, 1), 0)
		if there {
			must(t, err)
		} else {
			want(t, name, err, backend.ErrNotFound)
		}
	}
	// A deleted name is free for other bytes.
	must(t, ns.Put(ctx, "a", []byte("new")))
	if string(content(t, ns, "a")) != "new" {
		t.Error("the deleted object's bytes came back")
	}
}

// After Delete has returned nobody gets the object, however many read it.
func deleteRace(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	for round := range 10 {
		data := pattern(9000, uint64(round))
		must(t, ns.Put(ctx, "o", data))
		errs := parallel(5, func(i int) error {
			if i == 0 {
				err := ns.Delete(ctx, []string{"o"}, nil)
				if _, after := ns.Get(ctx, "o", make([]byte, 1), 0); !errors.Is(after, backend.ErrNotFound) {
					return fmt.Errorf("get after delete: %v", after)
				}
				return err
			}
			p := make([]byte, len(data))
			for {
				if _, err := ns.Get(ctx, "o", p, 0); errors.Is(err, backend.ErrNotFound) {
					return nil
				} else if err != nil {
					return err
				}
				if !bytes.Equal(p, data) {
					return errors.New("other bytes")
				}
			}
		})
		must(t, errors.Join(errs...))
	}
}

func list(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	all := []string{"a", "a-", "a.b", "aa", "b", "tlog-1", "tlog-10", "tlog-2"}
	for i := range all {
		must(t, ns.Put(ctx, all[(i*3)%len(all)], pattern(len(all[(i*3)%len(all)])*1000, 4)))
	}
	for prefix, expect := range map[string][]string{
		"": all, "a": all[:4], "a-": all[1:2], "tlog-": all[5:], "tlog-1": all[5:7], "zzz": nil, "A/": nil,
	} {
		var got []string
		must(t, ns.List(ctx, prefix, func(i backend.Info) bool {
			if i.Size != int64(len(i.Name)*1000) {
				t.Errorf("%s has %d bytes", i.Name, i.Size)
			}
			got = append(got, i.Name)
			return true
		}))
		if !slices.Equal(got, expect) {
			t.Errorf("list %q: %v", prefix, got)
		}
	}
	n := 0
	must(t, ns.List(ctx, "", func(backend.Info) bool { n++; return n < 3 }))
	if n != 3 {
		t.Errorf("list went on for %d calls after it was told to stop", n-3)
	}
	// fn may call the namespace.
	must(t, ns.List(ctx, "tlog-", func(i backend.Info) bool {
		must(t, ns.Delete(ctx, []string{i.Name}, nil))
		return true
	}))
}

// What the caller does to its buffers after the call changes nothing.
func buffers(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	data := pattern(10_000, 5)
	scratch := bytes.Clone(data)
	must(t, ns.Put(ctx, "o", scratch))
	clear(scratch)
	copy(scratch, data)
	_, err := ns.PutIf(ctx, "p", scratch, 0)
	must(t, err)
	clear(scratch)
	for _, name := range []string{"o", "p"} {
		p := make([]byte, len(data))
		_, err = ns.Get(ctx, name, p, 0)
		must(t, err)
		clear(p)
		if !bytes.Equal(content(t, ns, name), data) {
			t.Errorf("%s changed with the caller's buffer", name)
		}
	}
	deleted := []string{"o"}
	must(t, ns.Delete(ctx, deleted, nil))
	if deleted[0] != "o" {
		t.Error("delete changed its argument")
	}
}

func cancelled(t *testing.T, s backend.Store) {
	ns := create(t, s, "ns")
	must(t, ns.Put(ctx, "o", []byte("x")))
	dead, cancel := context.WithCancel(ctx)
	cancel()
	_, err := ns.Get(dead, "o", make([]byte, 1), 0)
	want(t, "get", err, context.Canceled)
	_, err = ns.Stat(dead, "o")
	want(t, "stat", err, context.Canceled)
	_, err = ns.PutIf(dead, "p", nil, 0)
	want(t, "put if", err, context.Canceled)
	want(t, "put", ns.Put(dead, "p", nil), context.Canceled)
	want(t, "delete", ns.Delete(dead, []string{"o"}, nil), context.Canceled)
	want(t, "list", ns.List(dead, "", func(backend.Info) bool { return true }), context.Canceled)
	want(t, "create namespace", s.CreateNamespace(dead, "ns2"), context.Canceled)
	want(t, "delete namespace", s.DeleteNamespace(dead, "ns"), context.Canceled)
	_, err = s.ListNamespaces(dead)
	want(t, "list namespaces", err, context.Canceled)
	_, _, err = s.Usage(dead)
	want(t, "usage", err, context.Canceled)
	if string(content(t, ns, "o")) != "x" {
		t.Error("a cancelled call had an effect")
	}
	_, err = ns.Stat(ctx, "p")
	want(t, "p", err, backend.ErrNotFound)
}

func usage(t *testing.T, s backend.Store) {
	used := func() uint64 {
		n, free, err := s.Usage(ctx)
		must(t, err)
		if free == 0 {
			t.Error("no space is free")
		}
		return n
	}
	ns := create(t, s, "ns")
	empty := used()
	must(t, ns.Put(ctx, "o", pattern(100_000, 6)))
	full := used()
	if full < empty+100_000 {
		t.Errorf("used grew from %d to %d", empty, full)
	}
	must(t, ns.Put(ctx, "o", pattern(100_000, 6)))
	if n := used(); n != full {
		t.Errorf("a retried put raised used from %d to %d", full, n)
	}
	must(t, ns.Delete(ctx, []string{"o"}, nil))
	if n := used(); n != empty {
		t.Errorf("used is %d after a delete, was %d before the put", n, empty)
	}
	v, err := ns.PutIf(ctx, "c", pattern(1000, 1), 0)
	must(t, err)
	_, err = ns.PutIf(ctx, "c", pattern(50_000, 1), v)
	must(t, err)
	if n := used(); n < empty+50_000 || n > empty+60_000 {
		t.Errorf("used is %d with an object of 50000 bytes", n)
	}
	must(t, s.DeleteNamespace(ctx, "ns"))
	if n := used(); n > empty {
		t.Errorf("used is %d with no namespace", n)
	}
}

// model does random things to the store and to a map, and compares.
func model(t *testing.T, s backend.Store) {
	const seed = 42
	r := rand.New(rand.NewPCG(seed, 0))
	ns := create(t, s, "ns")
	m := map[string][]byte{}
	versions := map[string]backend.Version{}
	for step := range 400 {
		name := fmt.Sprint("o", r.IntN(6))
		data := pattern(r.IntN(10_000), r.Uint64N(4))
		old, there := m[name]
		switch r.IntN(5) {
		case 0:
			err := ns.Put(ctx, name, data)
			if there && !bytes.Equal(old, data) {
				want(t, "put", err, backend.ErrExists)
				break
			}
			must(t, err)
			m[name] = data
		case 1:
			v, err := ns.PutIf(ctx, name, data, versions[name])
			must(t, err)
			m[name], versions[name] = data, v
		case 2:
			must(t, ns.Delete(ctx, []string{name}, &backend.Condition{Name: name, Version: versions[name]}))
			delete(m, name)
		default:
			if !there {
				_, err := ns.Stat(ctx, name)
				want(t, "stat", err, backend.ErrNotFound)
				break
			}
			getOne(t, ns, name, old, r.IntN(len(old)+10), r.IntN(10_000))
		}
		fi, err := ns.Stat(ctx, name)
		if _, there := m[name]; there != (err == nil) {
			t.Fatalf("step %d (seed %d): stat %s: %v", step, seed, name, err)
		}
		versions[name] = fi.Version
	}
}
