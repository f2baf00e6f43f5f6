package roster

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"openvstorage/internal/disk"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/disk/faultdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
)

var cluster = uuid.UUID{0: 0xc1, 15: 1}

func id(n byte) uuid.UUID { return uuid.UUID{0: 0xb0, 15: n} }

// sample is a cluster of three hosts in two zones.
func sample() *Roster {
	return &Roster{
		Revision: 77,
		Hosts: []Host{
			{ID: id(1), Zone: "a", Addresses: []string{"10.0.0.1:26400", "[fd00::1]:26400"}},
			{ID: id(2), Zone: "b", Addresses: []string{"host2.example:26400"}, Insecure: true},
			{ID: id(3)},
		},
		Groups: []Group{
			{Name: "abm", Life: 1, Next: 2, Members: []Member{{1, id(1)}}},
			{Name: "config", Life: 2, RequireZones: 2, Next: 6, Members: []Member{{1, id(1)}, {4, id(2)}, {5, id(3)}}},
		},
	}
}

func TestFindsMembers(t *testing.T) {
	r := sample()
	if h, ok := r.Place("config", 4); !ok || h.ID != id(2) {
		t.Error(h, ok)
	}
	for _, c := range []struct {
		group  string
		member uint64
	}{{"config", 2}, {"abm", 4}, {"none", 1}} {
		if h, ok := r.Place(c.group, c.member); ok {
			t.Errorf("member %d of %q is on %v", c.member, c.group, h)
		}
	}
	g, _ := r.Group("config")
	if m, ok := g.MemberOn(id(3)); !ok || m.ID != 5 {
		t.Error(m, ok)
	}
	if _, ok := g.MemberOn(id(9)); ok {
		t.Error("a member on a host that has none")
	}
}

func TestRefusesWhatNobodyCouldMean(t *testing.T) {
	for want, spoil := range map[string]func(*Roster){
		"out of order":        func(r *Roster) { slices.Reverse(r.Hosts) },
		"without an ID":       func(r *Roster) { r.Hosts[0].ID = uuid.UUID{} },
		"zone of 65 bytes":    func(r *Roster) { r.Hosts[0].Zone = strings.Repeat("z", 65) },
		"9 addresses":         func(r *Roster) { r.Hosts[0].Addresses = make([]string, 9) },
		"not HOST:PORT":       func(r *Roster) { r.Hosts[0].Addresses[0] = "10.0.0.1" },
		"address of 260":      func(r *Roster) { r.Hosts[0].Addresses[0] = strings.Repeat("h", 256) + ":123" },
		"has 0 bytes":         func(r *Roster) { r.Groups[0].Name = "" },
		"was not given away":  func(r *Roster) { r.Groups[1].Next = 5 },
		"member number 0":     func(r *Roster) { r.Groups[0].Members[0].ID = 0 },
		"two members":         func(r *Roster) { r.Groups[1].Members[1].Host = id(1) },
		"which is not listed": func(r *Roster) { r.Groups[0].Members[0].Host = id(9) },
		"17 members":          func(r *Roster) { r.Groups[0].Members = make([]Member, 17) },
		"\"abm\" is out":      func(r *Roster) { r.Groups[1].Name = "abm" },
	} {
		r := sample()
		spoil(r)
		if err := r.Check(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if err := sample().Check(); err != nil {
		t.Error(err)
	}
}

func TestKeysAndValues(t *testing.T) {
	want, got := sample(), &Roster{Revision: 77}
	for i := range want.Groups {
		if err := got.Take(want.Groups[i].Key(), want.Groups[i].Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range want.Hosts {
		if err := got.Take(want.Hosts[i].Key(), want.Hosts[i].Append(nil)); err != nil {
			t.Fatal(err)
		}
	}
	got.Sort()
	if !bytes.Equal(got.Encode(cluster, 1), want.Encode(cluster, 1)) {
		t.Errorf("%+v", got)
	}
	h := want.Hosts[0]
	serviced := h
	serviced.Maintenance = true
	taken := new(Roster)
	if err := taken.Take(serviced.Key(), serviced.Append(nil)); err != nil || !taken.Hosts[0].Maintenance || taken.Hosts[0].Leaves {
		t.Errorf("a host in maintenance: %+v, %v", taken.Hosts, err)
	}
	leaves := h
	leaves.Leaves = true
	taken = new(Roster)
	if err := taken.Take(leaves.Key(), leaves.Append(nil)); err != nil || !taken.Hosts[0].Leaves || taken.Hosts[0].Insecure != h.Insecure {
		t.Errorf("a host that leaves: %+v, %v", taken.Hosts, err)
	}
	for what, c := range map[string]struct {
		key, value []byte
		want       error
	}{
		"another's key":      {want.Hosts[1].Key(), h.Append(nil), format.ErrCorrupt},
		"another kind":       {want.Groups[0].Key(), h.Append(nil), format.ErrCorrupt},
		"an unknown kind":    {[]byte(Prefix + "x1"), h.Append(nil), format.ErrNewer},
		"another prefix":     {[]byte("trust/h"), h.Append(nil), format.ErrNewer},
		"a later version":    {h.Key(), append([]byte{2}, h.Append(nil)[1:]...), format.ErrNewer},
		"an unknown feature": {h.Key(), append([]byte{1, 1, 0, 0, 8}, h.Append(nil)[5:]...), format.ErrNewer},
		"a byte too many":    {h.Key(), append(h.Append(nil), 0), format.ErrNewer},
		"a byte too few":     {h.Key(), h.Append(nil)[:30], format.ErrCorrupt},
		"nothing":            {h.Key(), nil, format.ErrCorrupt},
	} {
		if err := new(Roster).Take(c.key, c.value); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestGolden(t *testing.T) {
	r := sample()
	fields := []golden.Field{{Size: format.HeaderSize, Name: "common header"}, {Size: 4, Name: "hosts"}}
	for _, h := range r.Hosts {
		fields = append(fields, golden.Field{Size: 2, Name: "length"}, golden.Field{Size: len(h.Append(nil)), Name: "host " + h.ID.String()})
	}
	fields = append(fields, golden.Field{Size: 4, Name: "groups"})
	for _, g := range r.Groups {
		fields = append(fields, golden.Field{Size: 2, Name: "length"}, golden.Field{Size: len(g.Append(nil)), Name: "group " + g.Name})
	}
	fields = append(fields, golden.Field{Size: 4, Name: "CRC-32C"})
	old := golden.Check(t, "testdata/roster.hex", "the roster of a host", r.Encode(cluster, 0x1122334455667788), fields...)
	got, err := Decode(old, cluster)
	if err != nil || !bytes.Equal(got.Encode(cluster, 0x1122334455667788), old) {
		t.Errorf("%+v, %v", got, err)
	}
}

// A file is the old or the new roster at every moment, whenever the power goes.
func TestFileCutAnywhere(t *testing.T) {
	old, next := sample(), sample()
	next.Revision, next.Groups[0].Next = 78, 3
	for skip := 0; ; skip++ {
		mem := crashdisk.New()
		fsys := faultdisk.New(mem)
		f, err := Load(fsys, "d/roster", cluster)
		if err != nil {
			t.Fatal(err)
		}
		if f.Now().Revision != 0 {
			t.Fatal("an absent file is no roster")
		}
		if err := errors.Join(fsys.MkdirAll("d", 0o700), fsys.SyncDir("."), f.Put(old)); err != nil {
			t.Fatal(err)
		}
		fsys.Inject(faultdisk.Rule{Skip: skip, Err: unix.EIO}) // nothing more is done from here on
		whole := f.Put(next) == nil
		for seed := range uint64(30) {
			for _, how := range []crashdisk.Options{crashdisk.KeepAll, crashdisk.LoseAll, crashdisk.Mixed, crashdisk.Torn} {
				g, err := Load(mem.Crash(rand.New(rand.NewPCG(seed, 1)), how), "d/roster", cluster)
				if err != nil {
					t.Fatalf("after %d operations: %v", skip, err)
				}
				if rev := g.Now().Revision; rev != 78 && (rev != 77 || whole) {
					t.Fatalf("after %d operations: revision %d, Put has succeeded: %v", skip, rev, whole)
				}
			}
		}
		if whole {
			return
		}
	}
}

func TestFileTakesOnlyNewer(t *testing.T) {
	mem := crashdisk.New()
	f, err := Load(mem, "roster", cluster)
	if err != nil {
		t.Fatal(err)
	}
	changed := f.Changed()
	if err := f.Put(sample()); err != nil {
		t.Fatal(err)
	}
	<-changed
	changed = f.Changed()
	older := sample()
	older.Revision, older.Hosts = 76, older.Hosts[:3]
	if err := f.Put(older); err != nil || f.Now().Revision != 77 {
		t.Error(err, f.Now().Revision)
	}
	select {
	case <-changed:
		t.Error("an older roster is a change")
	default:
	}
	bad := sample()
	bad.Revision, bad.Groups[0].Name = 99, ""
	if err := f.Put(bad); !errors.Is(err, ErrInvalid) || f.Now().Revision != 77 {
		t.Error(err)
	}
}

// A roster that could not be saved is not durable because it is put again: it is saved again.
func TestFileThatWasNotSaved(t *testing.T) {
	mem := crashdisk.New()
	bad := faultdisk.New(mem)
	f, err := Load(bad, "roster", cluster)
	if err != nil {
		t.Fatal(err)
	}
	bad.Inject(faultdisk.Rule{Ops: faultdisk.Open, Times: 1, Err: unix.ENOSPC})
	if err := f.Put(sample()); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("on a full disk: %v", err)
	}
	if err := f.Put(sample()); err != nil {
		t.Fatal(err)
	}
	if again, err := Load(mem, "roster", cluster); err != nil || again.Now().Revision != 77 {
		t.Errorf("after a second Put: revision %d, %v", again.Now().Revision, err)
	}
	written := bad.Count(faultdisk.Any, "")
	if err := f.Put(sample()); err != nil || bad.Count(faultdisk.Any, "") != written {
		t.Errorf("what is durable was saved again: %v", err)
	}
}

func TestFileThatIsNotOurs(t *testing.T) {
	whole := sample().Encode(cluster, 5)
	for what, c := range map[string]struct {
		b    []byte
		want error
	}{
		"another cluster's": {sample().Encode(uuid.UUID{1}, 5), ErrCluster},
		"a flipped bit":     {append(bytes.Clone(whole[:90]), append([]byte{whole[90] ^ 1}, whole[91:]...)...), ErrDamaged},
		"cut":               {whole[:len(whole)-1], ErrDamaged},
		"empty":             {nil, ErrDamaged},
		"too long":          {make([]byte, fileMax+1), ErrDamaged},
	} {
		mem := crashdisk.New()
		if err := disk.ReplaceWhole(mem, "roster", c.b); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(mem, "roster", cluster); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if _, err := mem.Stat("roster"); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the file is gone", what)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample().Encode(cluster, 5))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b, cluster)
		if err != nil {
			return
		}
		h, _ := format.Peek(b)
		if again := r.Encode(cluster, h.Incarnation); !bytes.Equal(again, b) {
			t.Errorf("%x is read as %x", b, again)
		}
	})
}

func FuzzTake(f *testing.F) {
	r := sample()
	f.Add(r.Hosts[0].Key(), r.Hosts[0].Append(nil))
	f.Add(r.Groups[1].Key(), r.Groups[1].Append(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		var r Roster
		if r.Take(key, value) != nil {
			return
		}
		for _, h := range r.Hosts {
			if h.check() == nil && !bytes.Equal(h.Append(nil), value) {
				t.Errorf("%x is read as %x", value, h.Append(nil))
			}
		}
		for _, g := range r.Groups {
			if g.check() == nil && !bytes.Equal(g.Append(nil), value) {
				t.Errorf("%x is read as %x", value, g.Append(nil))
			}
		}
	})
}
