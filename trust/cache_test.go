package trust_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/disk/osdisk"
	"openvstorage/internal/format"
	"openvstorage/trust"
)

const file = "d/records"

func (w *world) cacheOn(t testing.TB, fsys disk.FS, fault func(error)) *trust.Cache {
	t.Helper()
	return must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, Store: w.store, FS: fsys, File: file, Now: w.now, Fault: fault}))(t)
}

func newDisk(t testing.TB) *crashdisk.FS {
	t.Helper()
	fsys := crashdisk.New()
	if err := disk.MakeDir(fsys, "d", 0o700); err != nil {
		t.Fatal(err)
	}
	return fsys
}

func refresh(t testing.TB, c *trust.Cache) {
	t.Helper()
	if err := c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// What was seen is there after a restart, without a store.
func TestCacheAfterRestart(t *testing.T) {
	w := newWorld(t)
	fsys := newDisk(t)
	c := w.cacheOn(t, fsys, nil)
	if !c.Empty() {
		t.Error("a new cache has something")
	}
	eve := trust.SerialOf(w.person(t, trust.Person{Name: "eve", Role: trust.Viewer}).Certificate)
	refresh(t, c)
	if err := w.registrar.Revoke(t.Context(), eve, "gone"); err != nil {
		t.Fatal(err)
	}
	refresh(t, c)
	c = must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, FS: fsys, File: file}))(t)
	if r, ok := c.Certificate(eve); !ok || r.Revoked.IsZero() || r.Reason != "gone" || r.Identity.Name != "eve" {
		t.Errorf("after a restart: %+v, %v", r, ok)
	}
	if h, ok := c.Host(id(1)); !ok || h.State != trust.Joined || c.Empty() {
		t.Errorf("after a restart: %+v, %v", h, ok)
	}
	_, err := trust.OpenCache(trust.CacheOptions{Cluster: id(0xc7), FS: fsys, File: file})
	wants(t, "in another cluster", err, trust.ErrOtherCluster, w.cluster.String())
}

// A store that goes back to an older state brings back nobody who was revoked or removed.
func TestCacheWhenTheStoreGoesBack(t *testing.T) {
	w := newWorld(t)
	c := w.first.cache
	w.join(t, 2, trust.AllRoles)
	eve := trust.SerialOf(w.person(t, trust.Person{Name: "eve", Role: trust.Viewer}).Certificate)
	older := w.store.Copy()
	late := trust.SerialOf(w.person(t, trust.Person{Name: "late", Role: trust.Viewer}).Certificate)
	if err := errors.Join(w.registrar.Revoke(t.Context(), eve, "gone"), w.registrar.RemoveHost(t.Context(), id(2), "lost")); err != nil {
		t.Fatal(err)
	}
	refresh(t, c)
	w.store.Become(older)
	check := func(what string, lateKnown bool) {
		t.Helper()
		refresh(t, c)
		if r, _ := c.Certificate(eve); r.Revoked.IsZero() {
			t.Errorf("%s: a certificate that was revoked is good again", what)
		}
		if h, _ := c.Host(id(2)); h.State != trust.Removed {
			t.Errorf("%s: host 2 is %s", what, h.State)
		}
		if _, ok := c.Certificate(late); ok != lateKnown {
			t.Errorf("%s: a certificate that the store does not have is known: %v", what, ok)
		}
	}
	check("behind", true)
	for range 3 { // the store goes on from there, and past what was seen
		w.token(t, trust.RoleASD)
	}
	check("past", false)
}

// The file is replaced as a whole, whatever moment the power goes; and what cannot be
// written is obeyed all the same.
func TestCacheFile(t *testing.T) {
	w := newWorld(t)
	fsys := newDisk(t)
	faulty := faultdisk.New(fsys)
	var faults atomic.Int32
	c := w.cacheOn(t, faulty, func(error) { faults.Add(1) })
	refresh(t, c)
	before := readAll(t, fsys, file)

	full := errors.New("full")
	faulty.Inject(faultdisk.Rule{Ops: faultdisk.Write, Err: full})
	eve := trust.SerialOf(w.person(t, trust.Person{Name: "eve", Role: trust.Viewer}).Certificate)
	refresh(t, c)
	if _, ok := c.Certificate(eve); !ok || faults.Load() != 1 || !bytes.Equal(before, readAll(t, fsys, file)) {
		t.Errorf("known: %v, %d faults", ok, faults.Load())
	}
	faulty.Clear()
	w.token(t, trust.RoleASD)
	refresh(t, c)
	if faults.Load() != 1 {
		t.Error("the next file is not written")
	}
	after := readAll(t, fsys, file)

	for i := range after { // whichever byte is damaged
		b := bytes.Clone(after)
		b[i] ^= 0x40
		writeAll(t, fsys, file, b)
		faults.Store(0)
		c, err := trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, FS: fsys, File: file, Fault: func(error) { faults.Add(1) }})
		if err != nil || !c.Empty() || faults.Load() != 1 {
			t.Fatalf("byte %d damaged: %v, %d faults", i, err, faults.Load())
		}
	}
	writeAll(t, fsys, file, after[:40])
	if c := w.cacheOn(t, fsys, nil); !c.Empty() {
		t.Error("half a file has something")
	}
}

func readAll(t testing.TB, fsys disk.FS, name string) []byte {
	t.Helper()
	f := must(fsys.OpenFile(name, 0, 0))(t)
	defer f.Close()
	b := make([]byte, must(f.Size())(t))
	_, _ = f.ReadAt(b, 0)
	return b
}

func writeAll(t testing.TB, fsys disk.FS, name string, b []byte) {
	t.Helper()
	f := must(fsys.OpenFile(name, disk.Write|disk.Create|disk.Truncate, 0o600))(t)
	defer f.Close()
	if _, err := f.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
}

// A record that this release cannot read is left out, and the rest is obeyed.
func TestCacheLeavesOutWhatIsNewer(t *testing.T) {
	w := newWorld(t)
	w.store.Put([]byte("trust/c"+"0123456789abcdef"), []byte{2, 4, 0, 0, 0, 0, 0, 0})
	var fault error
	c := must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, Store: w.store, Fault: func(err error) { fault = err }}))(t)
	refresh(t, c)
	wants(t, "a record of version 2", fault, format.ErrNewer, "version 2")
	if _, ok := c.Host(id(1)); !ok {
		t.Error("the rest is not known")
	}
	other := must(trust.OpenCache(trust.CacheOptions{Cluster: id(9), Store: w.store}))(t)
	wants(t, "the store of another cluster", other.Refresh(t.Context()), trust.ErrOtherCluster)
}

// Run sees what changes within its period, and goes on after a fault.
func TestCacheRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		var faults atomic.Int32
		var away atomic.Bool
		w.store.Fail = func(string) error {
			if away.Load() {
				return errors.New("no quorum")
			}
			return nil
		}
		c := must(trust.OpenCache(trust.CacheOptions{Cluster: w.cluster, Store: w.store, Every: 10 * time.Second, Fault: func(error) { faults.Add(1) }}))(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		synctest.Wait()
		away.Store(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		away.Store(false)
		changed := c.Next()
		if err := w.registrar.SetRoles(t.Context(), id(1), trust.RoleASD); err != nil {
			t.Fatal(err)
		}
		<-changed
		if h, _ := c.Host(id(1)); h.Roles != trust.RoleASD || faults.Load() != 1 {
			t.Errorf("roles %s, %d faults", h.Roles, faults.Load())
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestMaterialFile(t *testing.T) {
	w := newWorld(t)
	m := w.first.credentials.Material()
	fsys, name := osdisk.New(), t.TempDir()+"/host.pem"
	key := must(trust.NewKey())(t)
	if err := trust.WriteKey(fsys, name, key); err != nil {
		t.Fatal(err)
	}
	if got := must(trust.ReadMaterial(fsys, name))(t); !got.Key.Equal(key) || got.Certificate != nil {
		t.Error("a key alone reads as something else")
	}
	if err := m.Write(fsys, name); err != nil {
		t.Fatal(err)
	}
	if info := must(fsys.Stat(name))(t); info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %o", info.Mode().Perm())
	}
	got := must(trust.ReadMaterial(fsys, name))(t)
	if !got.Key.Equal(m.Key) || !got.Certificate.Equal(m.Certificate) || !got.Authority.Equal(m.Authority) {
		t.Error("it reads as something else")
	}
	chmod(t, name, 0o640)
	_, err := trust.ReadMaterial(fsys, name)
	wants(t, "open to others", err, trust.ErrInvalid, "640")
	must(trust.ReadMaterial(fsys, name))(t)

	// The key of one and the certificate of another do not pass.
	ca, cert, _, _ := m.PEM()
	_, _, keyPEM, _ := (&trust.Material{Key: key, Certificate: m.Certificate, Authority: m.Authority}).PEM()
	_, err = trust.ParseMaterial(bytes.Join([][]byte{keyPEM, cert, ca}, nil))
	wants(t, "another's key", err, trust.ErrInvalid, "not that of the certificate")
}

// Whenever the power goes while the file is replaced, it is the old one or the new one.
func TestMaterialFileAcrossPowerCuts(t *testing.T) {
	w := newWorld(t)
	old := w.first.credentials.Material()
	w.add(days(31))
	fresh := w.renew(t, w.first)
	fsys := newDisk(t)
	if err := old.Write(fsys, "d/host.pem"); err != nil {
		t.Fatal(err)
	}
	if err := fresh.Write(fsys, "d/host.pem"); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(64) {
		after := cut(fsys, seed)
		m := must(trust.ReadMaterial(after, "d/host.pem"))(t)
		if !m.Certificate.Equal(fresh.Certificate) {
			t.Fatalf("seed %d: what was durable is gone", seed)
		}
	}
	for step := range 8 {
		fsys := newDisk(t)
		if err := old.Write(fsys, "d/host.pem"); err != nil {
			t.Fatal(err)
		}
		faulty := faultdisk.New(fsys)
		faulty.Inject(faultdisk.Rule{Skip: step, Err: errors.New("cut")})
		_ = fresh.Write(faulty, "d/host.pem")
		for seed := range uint64(8) {
			m := must(trust.ReadMaterial(cut(fsys, seed), "d/host.pem"))(t)
			if !m.Certificate.Equal(old.Certificate) && !m.Certificate.Equal(fresh.Certificate) {
				t.Fatalf("step %d, seed %d: neither", step, seed)
			}
		}
	}
}
