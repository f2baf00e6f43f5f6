package registry

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"openvstorage/internal/format"
	"openvstorage/internal/format/golden"
	"openvstorage/internal/format/unknown"
)

// encodeValue1 is how the release before wrote a record.
func encodeValue1(r *Record) []byte {
	var flags byte
	if r.Deleting {
		flags = flagDeleting
	}
	b := binary.LittleEndian.AppendUint64([]byte{1, flags}, r.Epoch)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Created.Unix()))
	b = binary.LittleEndian.AppendUint32(b, uint32(r.Created.Nanosecond()))
	b = append(append(b, r.Parent[:]...), byte(len(r.Owner)))
	return append(append(b, r.Owner...), r.Name...)
}

// encode1 is how the release before wrote a meta value.
func (m meta) encode1() []byte {
	b := binary.LittleEndian.AppendUint32([]byte{1, m.state}, m.records)
	return binary.LittleEndian.AppendUint64(b, m.generation)
}

// fields names the bytes of a value: sizes and names in turn.
func fields(list ...any) (all []golden.Field) {
	for i := 0; i < len(list); i += 2 {
		all = append(all, golden.Field{Size: list[i].(int), Name: list[i+1].(string)})
	}
	return all
}

func fieldsOf1(r *Record) []golden.Field {
	return fields(1, "version", 1, "flags", 8, "epoch", 12, "created", 16, "parent", 1, "length of owner", len(r.Owner), "owner", len(r.Name), "name")
}

func fieldsOf(r *Record) []golden.Field {
	return fields(1, "version", 1, "flags", 2, "length of name", 1, "length of owner", 3, "zero", 8, "epoch", 12, "created", 4, "incompatible features", 16, "parent", 16, "owner host", 16, "DTL host", 8, "DTL incarnation", 1, "DTL state", 39, "zero", len(r.Owner), "owner", len(r.Name), "name")
}

// The values of both versions, which never change.
func TestGoldenValues(t *testing.T) {
	for i, name := range []string{"clone", "root"} {
		r := sample()[i]
		for _, b := range [][]byte{
			golden.Check(t, "testdata/value-"+name+"-v1.hex", "record of the registry, version 1", encodeValue1(&r), fieldsOf1(&r)...),
			golden.Check(t, "testdata/value-"+name+"-v2.hex", "record of the registry, version 2", encodeValue(&r), fieldsOf(&r)...),
		} {
			if got, err := decodeValue(r.ID, b); err != nil || got != r {
				t.Errorf("version %d of record %s: %+v, %v", b[0], name, got, err)
			}
		}
	}
	m := meta{state: imported, records: 3, generation: 9}
	for _, b := range [][]byte{
		golden.Check(t, "testdata/meta-v1.hex", "meta value of the registry, version 1", m.encode1(),
			fields(1, "version", 1, "state", 4, "records", 8, "generation")...),
		golden.Check(t, "testdata/meta-v2.hex", "meta value of the registry, version 2", m.encode(),
			fields(1, "version", 1, "state", 2, "zero", 4, "records", 8, "generation", 16, "zero")...),
	} {
		if got, err := decodeMeta(b); err != nil || got != m {
			t.Errorf("version %d of the meta value: %+v, %v", b[0], got, err)
		}
	}
	none := golden.Check(t, "testdata/features-v1.hex", "features value of the registry, version 1, without features", append([]byte{1}, make([]byte, featuresSize-1)...),
		fields(1, "version", 3, "zero", 4, "incompatible features", 8, "zero")...)
	if err := errors.Join(checkFeatures(none), checkFeatures(nil)); err != nil || hasOwners(none) || hasOwners(nil) {
		t.Errorf("no features: %v", err)
	}
	owners := golden.Check(t, "testdata/features-owners-v1.hex", "features value of the registry, version 1, with owners", withOwners(),
		fields(1, "version", 3, "zero", 4, "incompatible features", 8, "zero")...)
	if err := checkFeatures(owners); err != nil || !hasOwners(owners) {
		t.Errorf("owners: %v", err)
	}
}

// me is a host that claims.
var me = Claimant{Host: id(91), Name: "me"}

func sampleIntent() Intent {
	return Intent{ID: id(3), Kind: Make, Host: id(91), Epoch: 1, Parent: id(1), ParentEpoch: 0x0102030405, Begun: time.Unix(1_700_000_000, 5).UTC()}
}

// What came with owners: a record that names a host, entries of hosts, and intents.
func TestGoldenOwners(t *testing.T) {
	r := sample()[0]
	r.Host, r.Released = id(91), true
	b := golden.Check(t, "testdata/value-host-v2.hex", "record of the registry, version 2, with a host that has released it", encodeValue(&r), fieldsOf(&r)...)
	if got, err := decodeValue(r.ID, b); err != nil || got != r {
		t.Errorf("record: %+v, %v", got, err)
	}
	e := Entry{id(91), true}
	b = golden.Check(t, "testdata/host-v1.hex", "entry of a host of the registry, version 1", e.encode(),
		fields(1, "version", 1, "flags", 2, "zero", 4, "incompatible features", 24, "zero")...)
	if got, err := decodeEntry(e.Host, b); err != nil || got != e {
		t.Errorf("entry: %+v, %v", got, err)
	}
	in := sampleIntent()
	b = golden.Check(t, "testdata/intent-v1.hex", "intent of the registry, version 1", in.encode(),
		fields(1, "version", 1, "kind", 2, "zero", 4, "incompatible features", 8, "epoch", 16, "host", 16, "parent", 8, "parent's epoch", 12, "begun", 28, "zero")...)
	if got, err := decodeIntent(in.ID, b); err != nil || got != in {
		t.Errorf("intent: %+v, %v", got, err)
	}
}

// with returns b with one byte set.
func with(b []byte, at int, c byte) []byte {
	b = bytes.Clone(b)
	b[at] = c
	return b
}

// What a later release may put into a value, one thing at a time.
func TestUnknown(t *testing.T) {
	r := sample()[0]
	value := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error {
			_, err := decodeValue(r.ID, b)
			if err != nil && !strings.Contains(err.Error(), r.ID.String()) {
				t.Errorf("it does not name the vDisk: %v", err)
			}
			return err
		}}
	}
	good := encodeValue(&r)
	unknown.Walk(t, "Record of the registry", map[string]unknown.Case{
		"a later version":            value("version 3", with(good, 0, 3)),
		"a flag":                     value("flags 0x80", with(good, 1, 0x81)),
		"an incompatible feature":    value("incompatible features", with(good, 30, 1)),
		"a DTL host":                 value("a DTL host", with(good, 64, 1)),
		"an incarnation of the DTL":  value("a DTL incarnation", with(good, 87, 1)),
		"a state of the DTL":         value("a DTL state", with(good, 88, 1)),
		"a field in the room":        value("a field behind the DTL state", with(good, valueFixed-1, 1)),
		"a field behind the lengths": value("a field behind the lengths", with(good, 6, 1)),
		"a field behind the name":    value("1 bytes behind the name", append(bytes.Clone(good), 0)),
		"a flag, in version 1":       value("flags 0x2", with(encodeValue1(&r), 1, 2)),
	})
	m := meta{state: imported, records: 3, generation: 9}.encode()
	of := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeMeta(b); return err }}
	}
	unknown.Walk(t, "Meta value of the registry", map[string]unknown.Case{
		"a later version":     of("version 3", with(m, 0, 3)),
		"a state":             of("state 3", with(m, 1, 3)),
		"more vDisks":         of("vDisks", with(m, 7, 1)),
		"a field":             of("a field behind the state", with(m, 2, 1)),
		"a field in the room": of("a field behind the generation", with(m, metaSize-1, 1)),
		"a longer value":      of("33 bytes", append(bytes.Clone(m), 0)),
	})
	f := append([]byte{1}, make([]byte, featuresSize-1)...)
	features := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { return checkFeatures(b) }}
	}
	unknown.Walk(t, "Features value of the registry", map[string]unknown.Case{
		"a later version":         features("version 2", with(f, 0, 2)),
		"a field":                 features("a field", with(f, 1, 1)),
		"an incompatible feature": features("incompatible features", with(f, 4, 2)),
		"a field in the room":     features("a field", with(f, featuresSize-1, 1)),
		"a longer value":          features("17 bytes", append(bytes.Clone(f), 0)),
	})
	h := Entry{id(4), true}.encode()
	entry := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeEntry(id(4), b); return err }}
	}
	unknown.Walk(t, "Entry of a host of the registry", map[string]unknown.Case{
		"a later version":         entry("version 2", with(h, 0, 2)),
		"a flag":                  entry("flags 0x2", with(h, 1, 3)),
		"a field":                 entry("a field behind the flags", with(h, 2, 1)),
		"an incompatible feature": entry("incompatible features", with(h, 4, 1)),
		"a field in the room":     entry("a field behind the features", with(h, hostSize-1, 1)),
		"a longer value":          entry("33 bytes", append(bytes.Clone(h), 0)),
	})
	in := sampleIntent()
	j := in.encode()
	intent := func(says string, b []byte) unknown.Case {
		return unknown.Case{Says: says, Read: func() error { _, err := decodeIntent(id(3), b); return err }}
	}
	unknown.Walk(t, "Intent of the registry", map[string]unknown.Case{
		"a later version":         intent("version 2", with(j, 0, 2)),
		"a kind":                  intent("kind 3", with(j, 1, 3)),
		"a field":                 intent("a field behind the kind", with(j, 2, 1)),
		"an incompatible feature": intent("incompatible features", with(j, 4, 1)),
		"a field in the room":     intent("a field behind the time", with(j, intentSize-1, 1)),
		"a longer value":          intent("97 bytes", append(bytes.Clone(j), 0)),
	})
	file := encode(5, sample())
	header := func(says string, h format.Header, at int, c byte) unknown.Case {
		h.Kind, h.Number = format.KindRegistry, 5
		b := append(format.AppendHeader(nil, h), file[format.HeaderSize:]...)
		if at > 0 {
			b[at] = c
		}
		binary.LittleEndian.PutUint32(b[60:], format.CRC(b[:60]))
		binary.LittleEndian.PutUint32(b[len(b)-crcSize:], format.CRC(b[:len(b)-crcSize]))
		return unknown.Case{Says: says, Read: func() error { _, _, err := decode(b); return err }}
	}
	one := format.Header{Version: 1, MinReader: 1}
	unknown.Walk(t, "Registry file of older releases", map[string]unknown.Case{
		"a later version, which this one may read": header("format 2", format.Header{Version: 2, MinReader: 1}, 0, 0),
		"a later minimum reader":                   header("format 2", format.Header{Version: 2, MinReader: 2}, 0, 0),
		"a compatible feature":                     header("compatible features 0x8", format.Header{Version: 1, MinReader: 1, Compatible: 8}, 0, 0),
		"an incompatible feature":                  header("features 0x1", format.Header{Version: 1, MinReader: 1, Incompatible: 1}, 0, 0),
		"a field in the header":                    header("offset 56", one, 56, 1),
		"a flag of a record":                       header("flags 0x2", one, 72+52, 3),
	})
}

// mapKeys is a store of keys in memory. before is called before each swap.
type mapKeys struct {
	all    map[string][]byte
	before func(k *mapKeys)
}

func (k *mapKeys) Get(_ context.Context, key []byte) ([]byte, error) { return k.all[string(key)], nil }
func (k *mapKeys) Settle(context.Context) error                      { return nil }

func (k *mapKeys) Range(_ context.Context, prefix []byte, fn func(key, value []byte) bool) error {
	for _, key := range slices.Sorted(maps.Keys(k.all)) {
		if strings.HasPrefix(key, string(prefix)) && !fn([]byte(key), k.all[key]) {
			break
		}
	}
	return nil
}

func (k *mapKeys) Swap(_ context.Context, swaps []Swap) (bool, error) {
	if k.before != nil {
		k.before(k)
	}
	for _, s := range swaps {
		if !same(k.all[string(s.Key)], s.Old) {
			return false, nil
		}
	}
	for _, s := range swaps {
		if delete(k.all, string(s.Key)); s.New != nil {
			k.all[string(s.Key)] = bytes.Clone(s.New)
		}
	}
	return true, nil
}

// keysOf1 is what the release before kept.
func keysOf1(state byte) *mapKeys {
	k := &mapKeys{all: map[string][]byte{}}
	m := meta{state: state, generation: uint64(state) * 5}
	for _, r := range sample() {
		k.all[string(idKey(r.ID))], k.all[string(nameKey(r.Name))] = encodeValue1(&r), bytes.Clone(r.ID[:])
		if state != importing {
			m.records++
		}
	}
	k.all[metaKey] = m.encode1()
	return k
}

// What the release before kept is served as it is. Each value is written anew with
// the next change of it, and is refused by that release then.
func TestOlderValues(t *testing.T) {
	ctx := t.Context()
	k := keysOf1(imported)
	before := maps.Clone(k.all)
	r, err := Open(ctx, k)
	must(t, err)
	list, err := r.List(ctx)
	if must(t, err); !slices.Equal(list, sample()) {
		t.Errorf("listed as %+v", list)
	}
	if !maps.EqualFunc(k.all, before, bytes.Equal) {
		t.Error("it is changed by being opened")
	}
	clone := sample()[0]
	epoch, err := r.Claim(ctx, clone.ID, me, 0)
	if must(t, err); epoch != clone.Epoch+1 {
		t.Errorf("epoch %d", epoch)
	}
	if _, err := r.Claim(ctx, id(1), Claimant{Host: id(92)}, 0); !errors.Is(err, ErrNotOwner) {
		t.Errorf("another host claims what the founder's older release wrote: %v", err)
	}
	must(t, r.Rename(ctx, id(1), sample()[1].Holder(), "other"))
	must(t, r.Register(ctx, Record{ID: id(7), Name: "new", Created: clone.Created}))
	must(t, r.Remove(ctx, id(7), Holder{}))
	must(t, Check(ctx, k))
	for _, key := range []string{string(idKey(id(1))), string(idKey(id(2))), metaKey} {
		if v := k.all[key]; v[0] != 2 {
			t.Errorf("%q is still of version %d", key, v[0])
		}
	}
}

// An import that the release before began is undone, and made anew.
func TestOlderImport(t *testing.T) {
	ctx := t.Context()
	k := keysOf1(importing)
	must(t, undoImport(ctx, k))
	if len(k.all) != 1 {
		t.Errorf("%d keys are left", len(k.all))
	}
}

// Nothing changes past a feature that this release does not know, be it one that
// another begins to use while a change is under way.
func TestFeatures(t *testing.T) {
	ctx := t.Context()
	newer := with(append([]byte{1}, make([]byte, featuresSize-1)...), 4, 2)
	changes := map[string]func(*Registry) error{
		"register": func(r *Registry) error { return r.Register(ctx, Record{ID: id(7), Name: "new"}) },
		"rename":   func(r *Registry) error { return r.Rename(ctx, id(1), sample()[1].Holder(), "other") },
		"claim":    func(r *Registry) error { _, err := r.Claim(ctx, id(1), me, 0); return err },
		"deleting": func(r *Registry) error { return r.MarkDeleting(ctx, id(1), sample()[1].Holder()) },
		"remove":   func(r *Registry) error { return r.Remove(ctx, id(1), sample()[1].Holder()) },
		"begin":    func(r *Registry) error { _, err := r.Begin(ctx, sampleIntent()); return err },
		"along": func(r *Registry) error {
			return r.RenameAll(ctx, nil, NewBeside([]Swap{{Key: []byte("beside"), New: []byte("x")}}))
		},
	}
	for name, change := range changes {
		k := keysOf1(imported)
		r, err := Open(ctx, k)
		must(t, err)
		k.before = func(k *mapKeys) { k.all[featuresKey] = newer }
		before := maps.Clone(k.all)
		if err := change(r); !errors.Is(err, format.ErrNewer) || !strings.Contains(err.Error(), "incompatible features") {
			t.Errorf("%s: %v", name, err)
		}
		if delete(k.all, featuresKey); !maps.EqualFunc(k.all, before, bytes.Equal) {
			t.Errorf("%s: it was changed", name)
		}
	}
	k := keysOf1(imported)
	k.all[featuresKey] = newer
	if _, err := Open(ctx, k); !errors.Is(err, format.ErrNewer) {
		t.Errorf("opened: %v", err)
	}
}

func FuzzValue(f *testing.F) {
	for _, r := range sample() {
		f.Add(encodeValue(&r))
		f.Add(encodeValue1(&r))
	}
	f.Add(meta{state: importing, generation: 4}.encode())
	f.Add(meta{state: importing, generation: 4}.encode1())
	f.Add(append([]byte{1}, make([]byte, featuresSize-1)...))
	f.Add(withOwners())
	f.Add(Entry{id(1), true}.encode())
	in := sampleIntent()
	f.Add(in.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeValue(id(1), b)
		again := encodeValue
		if err == nil && b[0] == 1 {
			again = encodeValue1
		}
		if err == nil && !bytes.Equal(again(&r), b) {
			t.Fatal("the record does not survive a round trip")
		}
		m, err := decodeMeta(b)
		metaAgain := m.encode
		if err == nil && b != nil && b[0] == 1 {
			metaAgain = m.encode1
		}
		if err == nil && b != nil && !bytes.Equal(metaAgain(), b) {
			t.Fatal("the meta value does not survive a round trip")
		}
		_ = checkFeatures(b)
		if e, err := decodeEntry(id(1), b); err == nil && !bytes.Equal(e.encode(), b) {
			t.Fatal("the entry does not survive a round trip")
		}
		if in, err := decodeIntent(id(1), b); err == nil && !bytes.Equal(in.encode(), b) {
			t.Fatal("the intent does not survive a round trip")
		}
	})
}
