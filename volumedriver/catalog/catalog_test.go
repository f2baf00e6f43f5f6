package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/format"
	"openvstorage/sco"

	"github.com/google/uuid"
)

func id(n byte) uuid.UUID { return uuid.UUID{0: n, 6: 0x40, 8: 0x80, 15: n} }

// sample has an entry in every list and a value in every field.
func sample() *Catalog {
	at := time.Date(2025, 3, 4, 5, 6, 7, 89, time.UTC)
	return &Catalog{
		Volume: id(9), Epoch: 7, Generation: 41, Size: 10 << 30, Created: at,
		NextSCO: 300, NextTLog: 12, NextObject: 6, StoredSeq: 130, Deleting: true,
		Config:   []Setting{{ID: 3, Optional: true, Value: "on"}, {ID: 700, Optional: true}},
		Epochs:   []EpochStart{{Epoch: 3, Base: 0}, {Epoch: 7, Base: 90}},
		Origins:  []Origin{{Volume: id(1), Snapshot: id(2)}, {Volume: id(9)}},
		Children: []Child{{Volume: id(20), Snapshot: id(31)}, {Volume: id(21), Snapshot: id(31), Unstored: true}},
		TLogs:    []TLog{{Number: 10, FirstSeq: 101, LastSeq: 110, Size: 4096}, {Number: 11, FirstSeq: 111, LastSeq: 130, Size: 8192}},
		Snapshots: []Snapshot{
			{ID: id(30), Name: "monday", Seq: 50, Created: at, Size: 5 << 30, NextSCO: 100, HasRoot: true, Root: Root{Page: 4, Levels: 2, Clusters: 5 << 18}, Meta: "by=hand"},
			{ID: id(31), Parent: id(30), Name: "", Seq: 120, Created: at.Add(time.Hour), Size: 10 << 30, NextSCO: 299, Auto: true},
		},
		Checkpoint: Checkpoint{
			Seq: 100, TLog: 9, NextPage: 80, Generation: 5, Parent: id(31), Recount: 60,
			Root: Root{Page: 70, Levels: 3, Clusters: 10 << 18}, Live: Root{Page: 71, Levels: 1, Clusters: 300},
			Drops: []Drop{{Page: 33, Level: 2}},
		},
		Pages: []PageObject{{Number: 1, First: 0, End: 50, Pages: 30, Size: 123456}, {Number: 5, First: 60, End: 80, Pages: 20, Size: 81920}},
	}
}

// grow gives every list n entries, as far as it may have them.
func grow(c *Catalog, n int) *Catalog {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	newID := func() (u uuid.UUID) {
		for i := range u {
			u[i] = byte(r.Uint32())
		}
		return u
	}
	c.Epoch = uint64(n + 1)
	c.Epochs, c.Origins, c.Snapshots, c.TLogs, c.Pages, c.Children, c.Checkpoint.Drops = nil, nil, nil, nil, nil, nil, nil
	for i := range n {
		c.Epochs = append(c.Epochs, EpochStart{Epoch: uint64(i), Base: r.Uint64()})
		if i < int(sco.MaxOrigin) {
			c.Origins = append(c.Origins, Origin{Volume: newID(), Snapshot: newID()})
		}
		c.Snapshots = append(c.Snapshots, Snapshot{ID: newID(), Name: fmt.Sprintf("snapshot %d", i), Created: time.Unix(int64(i), 0).UTC()})
		c.Children = append(c.Children, Child{Volume: newID(), Snapshot: c.Snapshots[i].ID, Unstored: i%3 == 0})
		c.TLogs = append(c.TLogs, TLog{Number: uint64(i + 10), FirstSeq: uint64(101 + 10*i), LastSeq: uint64(110 + 10*i), Size: r.Int64()})
		c.Pages = append(c.Pages, PageObject{Number: uint64(i), First: uint64(i) * 100, End: uint64(i)*100 + 90, Pages: r.Uint32N(90), Size: r.Int64()})
		c.Checkpoint.Drops = append(c.Checkpoint.Drops, Drop{Page: r.Uint64(), Level: uint8(i)})
	}
	c.Origins = append(c.Origins, Origin{Volume: c.Volume})
	c.NextTLog, c.NextObject, c.Checkpoint.NextPage = uint64(n+10), uint64(n), uint64(n)*100
	c.StoredSeq = 100 + 10*uint64(n)
	return c
}

type store map[string][]byte

func (s store) fetch(name string) ([]byte, error) {
	b, ok := s[name]
	if !ok {
		return nil, errors.New("not found")
	}
	return b, nil
}

func encode(t *testing.T, c *Catalog) ([]byte, store) {
	t.Helper()
	root, segs, err := Encode(c)
	if err != nil {
		t.Fatal(err)
	}
	s := store{}
	for _, seg := range segs {
		s[seg.Name] = seg.Data
	}
	return root, s
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []*Catalog{
		sample(),
		{Volume: id(1), Origins: []Origin{{Volume: id(1)}}},
		grow(sample(), 100), grow(sample(), 1000), grow(sample(), 20000),
	} {
		root, segs := encode(t, c)
		if len(root) > RootMax {
			t.Fatalf("root of %d bytes", len(root))
		}
		if small := len(c.Snapshots) <= 100; small != (len(segs) == 0) {
			t.Errorf("%d snapshots: %d segments", len(c.Snapshots), len(segs))
		}
		got, err := Decode(root, segs.fetch)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, c) {
			t.Errorf("%d snapshots: decoded catalog differs", len(c.Snapshots))
		}
		names, err := Segments(root)
		if err != nil || len(names) != len(segs) {
			t.Errorf("Segments: %d of %d, %v", len(names), len(segs), err)
		}
		for _, n := range names {
			if segs[n] == nil {
				t.Errorf("segment %s is named and was not made", n)
			}
		}
		again, _ := encode(t, c)
		if !bytes.Equal(root, again) {
			t.Error("equal catalogs, other bytes")
		}
	}
}

// An entry more or less leaves most segments their names, wherever it is.
func TestSegmentsKeepTheirNames(t *testing.T) {
	c := grow(sample(), 20000)
	_, before := encode(t, c)
	i := 7777
	c.Snapshots[i].Name = "renamed"
	c.Children = slices.Delete(c.Children, 100, 101)
	c.Epochs = slices.Delete(c.Epochs, 0, 1)
	_, after := encode(t, c)
	fresh := 0
	for name := range after {
		if before[name] == nil {
			fresh++
		}
	}
	if fresh > 8 || len(after) < 40 {
		t.Errorf("%d of %d segments are new", fresh, len(after))
	}
}

func TestTooLarge(t *testing.T) {
	c := grow(sample(), 1000)
	root, _, err := c.encode(2000)
	if err != nil || len(root) > 2000 {
		t.Errorf("%d bytes, %v", len(root), err)
	}
	if _, _, err := c.encode(500); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v", err)
	}
}

// Every bit matters: no flipped or cut root or segment is accepted.
func TestDamage(t *testing.T) {
	root, _ := encode(t, sample())
	for i := range root {
		bad := bytes.Clone(root)
		bad[i] ^= 1 << (i % 8)
		if _, err := Decode(bad, nil); !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("flip at %d: %v", i, err)
		}
		if _, err := Decode(root[:i], nil); !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
	root, segs := encode(t, grow(sample(), 1000))
	for name, data := range segs {
		for i := 0; i < len(data); i += 1999 {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << (i % 8)
			segs[name] = bad
			if _, err := Decode(root, segs.fetch); !errors.Is(err, format.ErrCorrupt) || !strings.Contains(err.Error(), name) {
				t.Fatalf("flip at %d of %s: %v", i, name, err)
			}
		}
		segs[name] = data[:len(data)-1]
		if _, err := Decode(root, segs.fetch); !errors.Is(err, format.ErrCorrupt) {
			t.Fatalf("short segment: %v", err)
		}
		segs[name] = data
	}
	gone := errors.New("gone")
	if _, err := Decode(root, func(string) ([]byte, error) { return nil, gone }); !errors.Is(err, gone) {
		t.Errorf("fetch's error is lost: %v", err)
	}
}

// manySettings are as long as one may be.
func manySettings(n int) (list []Setting) {
	for i := range n {
		list = append(list, Setting{ID: uint16(i + 1), Optional: true, Value: strings.Repeat("v", SettingMax)})
	}
	return list
}

func TestValidate(t *testing.T) {
	if err := sample().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Catalog){
		"settings out of order":         func(c *Catalog) { c.Config[0].ID = 701 },
		"setting without id":            func(c *Catalog) { c.Config[0].ID = 0 },
		"setting that must be known":    func(c *Catalog) { c.Config[0].Optional = false },
		"setting too long":              func(c *Catalog) { c.Config[0].Value = strings.Repeat("v", 1025) },
		"too many settings":             func(c *Catalog) { c.Config = manySettings(5) },
		"metadata too long":             func(c *Catalog) { c.Snapshots[0].Meta = strings.Repeat("m", 4097) },
		"no id":                         func(c *Catalog) { c.Volume = uuid.Nil },
		"no origin":                     func(c *Catalog) { c.Origins = nil },
		"last origin is another":        func(c *Catalog) { c.Origins[1].Volume = id(50) },
		"self twice":                    func(c *Catalog) { c.Origins[0].Volume = id(9) },
		"origin without snapshot":       func(c *Catalog) { c.Origins[0].Snapshot = uuid.Nil },
		"self with snapshot":            func(c *Catalog) { c.Origins[1].Snapshot = id(3) },
		"epochs out of order":           func(c *Catalog) { c.Epochs[0].Epoch = 8 },
		"epoch from the future":         func(c *Catalog) { c.Epoch = 6 },
		"SCO number too large":          func(c *Catalog) { c.NextSCO = sco.MaxNumber + 2 },
		"TLogs out of order":            func(c *Catalog) { c.TLogs[0].Number = 11 },
		"TLog above next":               func(c *Catalog) { c.NextTLog = 11 },
		"gap behind the checkpoint":     func(c *Catalog) { c.TLogs[0].FirstSeq = 102 },
		"gap between TLogs":             func(c *Catalog) { c.TLogs[1].FirstSeq = 112 },
		"TLogs overlap":                 func(c *Catalog) { c.TLogs[1].FirstSeq = 110 },
		"TLog ends first":               func(c *Catalog) { c.TLogs[1].LastSeq = 105; c.StoredSeq = 105 },
		"TLog under the checkpoint":     func(c *Catalog) { c.Checkpoint.TLog = 10 },
		"stored seq too large":          func(c *Catalog) { c.StoredSeq = 131 },
		"stored seq too small":          func(c *Catalog) { c.StoredSeq = 129 },
		"snapshot id twice":             func(c *Catalog) { c.Snapshots[0].ID = id(31) },
		"snapshot name twice":           func(c *Catalog) { c.Snapshots[1].Name = "monday" },
		"snapshot without name":         func(c *Catalog) { c.Snapshots[1].Auto = false },
		"snapshot name too long":        func(c *Catalog) { c.Snapshots[1].Name = strings.Repeat("n", 1025) },
		"snapshot sees unused SCOs":     func(c *Catalog) { c.Snapshots[1].NextSCO = 301 },
		"root above the checkpoint":     func(c *Catalog) { c.Snapshots[1].HasRoot = true },
		"child of no snapshot":          func(c *Catalog) { c.Children[0].Snapshot = id(77) },
		"child twice":                   func(c *Catalog) { c.Children = append(c.Children, c.Children[0]) },
		"own child":                     func(c *Catalog) { c.Children[0].Volume = id(9) },
		"page objects overlap":          func(c *Catalog) { c.Pages[1].First = 49 },
		"page objects out of order":     func(c *Catalog) { slices.Reverse(c.Pages) },
		"page object is empty":          func(c *Catalog) { c.Pages[0].End = 0 },
		"page object number twice":      func(c *Catalog) { c.Pages[0].Number = 5 },
		"page object above next":        func(c *Catalog) { c.NextObject = 5 },
		"too many pages":                func(c *Catalog) { c.Pages[1].Pages = 21 },
		"pages above the checkpoint":    func(c *Catalog) { c.Checkpoint.NextPage = 79 },
		"more origins than a table has": func(c *Catalog) { grow(c, 4096); c.Origins = append([]Origin{{id(200), id(201)}}, c.Origins...) },
	} {
		c := sample()
		spoil(c)
		if err := c.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, _, err := Encode(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: encoded: %v", name, err)
		}
	}
}

func TestFind(t *testing.T) {
	c := sample()
	if s := c.FindSnapshot("monday"); s != &c.Snapshots[0] || c.FindSnapshot("") != nil || c.FindSnapshot("tuesday") != nil {
		t.Error("FindSnapshot")
	}
	if s := c.Snapshot(id(31)); s != &c.Snapshots[1] || c.Snapshot(id(99)) != nil {
		t.Error("Snapshot")
	}
	if len(c.ChildrenOf(id(31))) != 2 || len(c.ChildrenOf(id(30))) != 0 {
		t.Error("ChildrenOf")
	}
	if c.Self() != 1 {
		t.Error("Self")
	}
	for page := range uint64(100) {
		want := -1
		for i, p := range c.Pages {
			if page >= p.First && page < p.End {
				want = i
			}
		}
		got, ok := c.PageObject(page)
		if ok != (want >= 0) || ok && got != c.Pages[want] {
			t.Errorf("page %d: %v %v", page, got, ok)
		}
	}
}

func TestCloneSharesNothing(t *testing.T) {
	c, want := sample(), sample()
	n := c.Clone()
	n.Epochs[0].Epoch, n.Origins[0].Volume, n.Children[0].Volume, n.TLogs[0].Size = 1, id(8), id(8), 8
	n.Config[0].Value = "off"
	n.Snapshots[0].Name, n.Pages[0].Size, n.Checkpoint.Drops[0].Page = "x", 8, 8
	if !reflect.DeepEqual(c, want) {
		t.Error("a change of the clone shows in the original")
	}
}
