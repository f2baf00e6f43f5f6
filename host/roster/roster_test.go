package roster_test

import (
	"bytes"
	"errors"
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/google/uuid"

	"openvstorage/host/roster"
	"openvstorage/internal/disk/crashdisk"
	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
	"openvstorage/internal/generation"
	"openvstorage/trust/trusttest"
)

var (
	cluster = uuid.MustParse("0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0")
	sample  = roster.Host{
		ID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), Mark: mark(7, 9), Level: 1, Insecure: true, Config: true,
		Zone: "room-1", Release: "1.2", Addresses: []string{"10.0.0.1:26400"}, Storage: []string{"10.1.0.1:26400", "[fd00::1]:1"},
	}
)

func mark(n, start uint64) generation.Mark { return generation.Mark{Number: n, Start: start} }

// The bytes of a record and of a book never change.
func TestGolden(t *testing.T) {
	b := golden.Check(t, "testdata/host.hex", "record of where a host is, version 1", sample.Encode(),
		golden.Field{Size: 1, Name: "version"}, golden.Field{Size: 1, Name: "flags"}, golden.Field{Size: 2, Name: "zero"},
		golden.Field{Size: 4, Name: "incompatible features"}, golden.Field{Size: 16, Name: "host"}, golden.Field{Size: 16, Name: "mark"},
		golden.Field{Size: 4, Name: "level"}, golden.Field{Size: 7, Name: "zone"}, golden.Field{Size: 4, Name: "release"},
		golden.Field{Size: 16, Name: "addresses"}, golden.Field{Size: 28, Name: "addresses for storage"})
	if got, err := roster.Decode(b); err != nil || !reflect.DeepEqual(got, sample) {
		t.Errorf("%+v, %v", got, err)
	}
	book := roster.Book{Seeds: []string{"10.0.0.9:1"}, Hosts: []roster.Host{sample}}
	b = golden.Check(t, "testdata/book.hex", "book of hosts, version 1", book.Encode(cluster, 5),
		golden.Field{Size: 64, Name: "header"}, golden.Field{Size: 12, Name: "seeds"}, golden.Field{Size: 4, Name: "hosts"},
		golden.Field{Size: 2, Name: "length"}, golden.Field{Size: 99, Name: "record"}, golden.Field{Size: 4, Name: "CRC"})
	if got, err := roster.DecodeBook(b, cluster); err != nil || !reflect.DeepEqual(got, book) {
		t.Errorf("%+v, %v", got, err)
	}
}

// What a later release may put into a record is refused as such, and what nobody writes as
// damage.
func TestDecodeRefuses(t *testing.T) {
	with := func(at int, says string) unknown.Case {
		b := sample.Encode()
		b[at] |= 0x80
		return unknown.Case{Says: says, Read: func() error { _, err := roster.Decode(b); return err }}
	}
	unknown.Walk(t, "Record of where a host is", map[string]unknown.Case{
		"a later version": with(0, "version 129"), "a flag": with(1, "flags 0x8"), "a field in the head": with(2, "flags 0x"),
		"an incompatible feature": with(4, "features 0x80"),
		"a field behind the last": {Says: "1 bytes behind the last field", Read: func() error { _, err := roster.Decode(append(sample.Encode(), 0)); return err }},
	})
	for n := range sample.Encode() {
		if _, err := roster.Decode(sample.Encode()[:n]); !errors.Is(err, format.ErrCorrupt) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
}

// Of two copies of a directory one is the host. The other is refused, however often it is
// started, and writes nothing.
func TestCopiesAreRefused(t *testing.T) {
	ctx, store := t.Context(), trusttest.NewStore()
	at := func(m generation.Mark) roster.Host { h := sample; h.Mark = m; return h }
	register := func(h generation.History) error { return roster.Register(ctx, store, at(h[len(h)-1]), h) }
	one := generation.History{}.Add(mark(1, 11))
	if err := register(one); err != nil {
		t.Fatal(err)
	}
	two := one.Add(mark(2, 12))
	if err := errors.Join(register(two), register(two)); err != nil {
		t.Fatal(err)
	}
	before, _ := store.Get(ctx, roster.Key(sample.ID))
	apart := one
	for n := uint64(2); n < 6; n++ { // the copy was made before two was started
		if apart = apart.Add(mark(n, 90+n)); !errors.Is(register(apart), roster.ErrCopy) {
			t.Errorf("a copy that was started as generation %d is taken", n)
		}
	}
	if err := register(one); !errors.Is(err, roster.ErrCopy) || !strings.Contains(err.Error(), sample.ID.String()) {
		t.Errorf("an older one: %v", err)
	}
	if after, _ := store.Get(ctx, roster.Key(sample.ID)); !bytes.Equal(before, after) {
		t.Error("a copy has written")
	}
	if err := roster.Register(ctx, store, at(mark(3, 13)), two); err == nil {
		t.Error("a start that is not in the history is taken")
	}
	if err := register(two.Add(mark(3, 13))); err != nil {
		t.Errorf("the newest one: %v", err)
	}
	if all, err := roster.List(ctx, store, nil); err != nil || len(all) != 1 || all[0].Mark != mark(3, 13) {
		t.Errorf("%+v, %v", all, err)
	}
}

// A book is the old one or the new one, wherever the power is cut, and is of one cluster.
func TestBook(t *testing.T) {
	d := crashdisk.New()
	if err := errors.Join(d.MkdirAll("/d", 0o700), d.SyncDir("/")); err != nil {
		t.Fatal(err)
	}
	if _, err := roster.ReadBook(d, "/d/book", cluster); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	book := roster.Book{Hosts: []roster.Host{sample}}
	for range 2 { // the second finds the first
		if err := roster.WriteBook(d, "/d/book", cluster, 3, book); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := roster.ReadBook(d.Kill(), "/d/book", cluster); err != nil || !reflect.DeepEqual(got, book) {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := roster.ReadBook(d, "/d/book", sample.ID); !errors.Is(err, roster.ErrOtherCluster) {
		t.Error(err)
	}
	b := book.Encode(cluster, 3)
	b[len(b)-9] ^= 1
	if _, err := roster.DecodeBook(b, cluster); !errors.Is(err, format.ErrCorrupt) {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	for a, ok := range map[string]bool{
		"10.0.0.1:1": true, "host.a:26400": true, "[fd00::1]:1": true, "0.0.0.0:1": false, "[::]:1": false, ":1": false,
		"10.0.0.1": false, "10.0.0.1:0": false, "10.0.0.1:x": false, "a b:1": false, strings.Repeat("a", 300) + ":1": false,
	} {
		if err := roster.CheckAddress(a); (err == nil) != ok {
			t.Errorf("%q: %v", a, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(sample.Encode())
	f.Add(roster.EncodeAnnouncement(sample, generation.History{}.Add(sample.Mark)))
	f.Add(roster.Book{Hosts: []roster.Host{sample}}.Encode(cluster, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := roster.Decode(b); err == nil && !bytes.Equal(h.Encode(), b) {
			t.Errorf("%x is read, and written as %x", b, h.Encode())
		}
		if h, history, err := roster.DecodeAnnouncement(b); err == nil && !bytes.Equal(roster.EncodeAnnouncement(h, history), b) {
			t.Errorf("announcement %x is written in another way", b)
		}
		_, _ = roster.DecodeBook(b, cluster)
	})
}
