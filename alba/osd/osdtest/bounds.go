package osdtest

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"openvstorage/alba/osd"
)

func asserts(t *testing.T, o osd.OSD) {
	v := Data(4096, 3)
	apply(t, o, Put("there", v, 1, 1), Put("empty", nil, 1, 1), Put("long", Data(5000, 1), 1, 1))
	for i, c := range []struct {
		kind  osd.AssertKind
		key   string
		value []byte
		holds bool
	}{
		{osd.Exists, "there", nil, true},
		{osd.Exists, "empty", nil, true},
		{osd.Exists, "absent", nil, false},
		{osd.Absent, "absent", nil, true},
		{osd.Absent, "ther", nil, true},
		{osd.Absent, "there", nil, false},
		{osd.Absent, "empty", nil, false},
		{osd.Equals, "there", v, true},
		{osd.Equals, "there", v[:4095], false},
		{osd.Equals, "there", Data(4096, 4), false},
		{osd.Equals, "there", nil, false},
		{osd.Equals, "empty", nil, true},
		{osd.Equals, "empty", []byte{0}, false},
		{osd.Equals, "absent", nil, false},
		{osd.Equals, "absent", v, false},
		{osd.Equals, "long", v, false},
	} {
		key := fmt.Sprint("new", i)
		a := osd.Assert{Kind: c.kind, Key: []byte(c.key), Value: c.value}
		holding := osd.Assert{Kind: osd.Exists, Key: []byte("there")}
		err := o.Apply(ctx, []osd.Assert{holding, a, holding}, []osd.Update{Put(key, v, 1, 1), Delete("absent")})
		if c.holds {
			if err != nil {
				t.Errorf("case %d: %v", i, err)
			}
			continue
		}
		var failed *osd.AssertError
		if !errors.As(err, &failed) || !errors.Is(err, osd.ErrAssert) || string(failed.Key) != c.key {
			t.Errorf("case %d: got %v", i, err)
		}
		absent(t, o, key)
	}
	// Asserts alone are a question.
	must(t, o.Apply(ctx, []osd.Assert{{Kind: osd.Exists, Key: []byte("there")}}, nil))
	want(t, "asserts without updates", o.Apply(ctx, []osd.Assert{{Kind: osd.Absent, Key: []byte("there")}}, nil), osd.ErrAssert)
}

func assertsBefore(t *testing.T, o osd.OSD) {
	is := func(kind osd.AssertKind, value string) []osd.Assert {
		return []osd.Assert{{Kind: kind, Key: []byte("k"), Value: []byte(value)}}
	}
	one, two := Put("k", []byte("1"), 1, 1), Put("k", []byte("2"), 2, 2)
	want(t, "what the update makes is not there yet", o.Apply(ctx, is(osd.Exists, ""), []osd.Update{one}), osd.ErrAssert)
	absent(t, o, "k")
	must(t, o.Apply(ctx, is(osd.Absent, ""), []osd.Update{one}))
	want(t, "nor is its value", o.Apply(ctx, is(osd.Equals, "2"), []osd.Update{two}), osd.ErrAssert)
	holds(t, o, "k", []byte("1"), 1, 1)
	must(t, o.Apply(ctx, is(osd.Equals, "1"), []osd.Update{two}))
	holds(t, o, "k", []byte("2"), 2, 2)
	want(t, "what it deletes is still there", o.Apply(ctx, is(osd.Absent, ""), []osd.Update{Delete("k")}), osd.ErrAssert)
	must(t, o.Apply(ctx, is(osd.Equals, "2"), []osd.Update{Delete("k")}))
	absent(t, o, "k")
}

// assertsEpoch: what is of a newer epoch than the one that is named stays, whether
// it is to be deleted or to be written over.
func assertsEpoch(t *testing.T, o osd.OSD) {
	upTo := func(epoch uint64) []osd.Assert {
		return []osd.Assert{{Kind: osd.NotNewer, Key: []byte("k"), Epoch: epoch}}
	}
	must(t, o.Apply(ctx, upTo(0), []osd.Update{Delete("k")}))
	must(t, o.Apply(ctx, upTo(6), []osd.Update{Put("k", []byte("1"), 1, 7)}))
	want(t, "a delete of what is newer", o.Apply(ctx, upTo(6), []osd.Update{Delete("k")}), osd.ErrAssert)
	want(t, "a put over what is newer", o.Apply(ctx, upTo(6), []osd.Update{Put("k", []byte("2"), 1, 6)}), osd.ErrAssert)
	holds(t, o, "k", []byte("1"), 1, 7)
	must(t, o.Apply(ctx, upTo(7), []osd.Update{Put("k", []byte("2"), 1, 7)}))
	must(t, o.Apply(ctx, upTo(8), []osd.Update{Put("k", []byte("3"), 1, 1<<63)}))
	want(t, "a delete of what is newer", o.Apply(ctx, upTo(1<<63-1), []osd.Update{Delete("k")}), osd.ErrAssert)
	holds(t, o, "k", []byte("3"), 1, 1<<63)
	must(t, o.Apply(ctx, upTo(1<<63), []osd.Update{Delete("k")}))
	absent(t, o, "k")
	// Of two at once one comes first: whichever it is, the newer one is there then.
	for round := range uint64(50) {
		together(2, func(i int) {
			if i == 0 {
				apply(t, o, Put("k", []byte("new"), 1, round+1))
			} else if err := o.Apply(ctx, upTo(round), []osd.Update{Delete("k")}); err != nil && !errors.Is(err, osd.ErrAssert) {
				t.Error(err)
			}
		})
		holds(t, o, "k", []byte("new"), 1, round+1)
	}
}

func bounds(t *testing.T, o osd.OSD) {
	apply(t, o, Put("k", []byte("v"), 1, 1))
	long := string(make([]byte, osd.KeyMax+1))
	ok := []osd.Update{Put("other", nil, 1, 1)}
	updates := make([]osd.Update, osd.UpdatesMax+1)
	many := make([]osd.Assert, osd.UpdatesMax+1)
	for i := range updates {
		updates[i] = Put(fmt.Sprint("u", i), []byte{byte(i)}, uint64(i), 1)
		many[i] = osd.Assert{Kind: osd.Exists, Key: []byte("k")}
	}
	tooLong := osd.Value{Data: make([]byte, osd.ValueMax+1)}
	tooLong.CRCs = make([]uint32, osd.Blocks(len(tooLong.Data)))
	third := Put("third", make([]byte, osd.ApplyMax/3+1), 1, 1)
	for name, c := range map[string]struct {
		asserts []osd.Assert
		updates []osd.Update
	}{
		"no key":                {nil, []osd.Update{ok[0], Put("", nil, 1, 1)}},
		"a long key":            {nil, []osd.Update{ok[0], Put(long, nil, 1, 1)}},
		"deletes no key":        {nil, []osd.Update{ok[0], Delete("")}},
		"deletes a long key":    {nil, []osd.Update{ok[0], Delete(long)}},
		"asserts no key":        {[]osd.Assert{{Kind: osd.Absent}}, ok},
		"asserts a long key":    {[]osd.Assert{{Kind: osd.Absent, Key: []byte(long)}}, ok},
		"no kind":               {[]osd.Assert{{Key: []byte("k")}}, ok},
		"an unknown kind":       {[]osd.Assert{{Kind: 5, Key: []byte("k")}}, ok},
		"asserts a long value":  {[]osd.Assert{{Kind: osd.Equals, Key: []byte("k"), Value: make([]byte, osd.BlockSize+1)}}, ok},
		"too many asserts":      {many, ok},
		"too many updates":      {nil, updates},
		"too long a value":      {nil, []osd.Update{ok[0], {Key: []byte("big"), Value: tooLong}}},
		"too many bytes in all": {nil, []osd.Update{ok[0], third, third, third}},
	} {
		want(t, name, o.Apply(ctx, c.asserts, c.updates), osd.ErrInvalid)
	}
	for _, key := range []string{"other", "u0", "big", "third"} {
		absent(t, o, key)
	}
	_, err := o.Stat(ctx, make([][]byte, osd.RangeMax+1))
	want(t, "stat of too many keys", err, osd.ErrInvalid)
	holds(t, o, "k", []byte("v"), 1, 1)
}

// largest: the bounds themselves are inside.
func largest(t *testing.T, o osd.OSD) {
	key := string(bytes.Repeat([]byte{0xff}, osd.KeyMax))
	apply(t, o, Put(key, []byte("v"), 1, 1), Put("\x00", []byte("w"), 2, 2))
	holds(t, o, key, []byte("v"), 1, 1)
	holds(t, o, "\x00", []byte("w"), 2, 2)
	updates := make([]osd.Update, osd.UpdatesMax)
	all := make([]osd.Assert, osd.UpdatesMax)
	for i := range updates {
		updates[i] = Put(fmt.Sprint("u", i), []byte{byte(i)}, uint64(i), 1)
		all[i] = osd.Assert{Kind: osd.Absent, Key: updates[i].Key}
	}
	must(t, o.Apply(ctx, all, updates))
	for i := 0; i < len(updates); i += 93 {
		holds(t, o, string(updates[i].Key), updates[i].Value.Data, uint64(i), 1)
	}
	if testing.Short() {
		return
	}
	data := make([]byte, osd.ValueMax)
	for i := 0; i < len(data); i += 1000 {
		data[i] = byte(i / 1000)
	}
	apply(t, o, Put("big", data, 1, 1))
	holds(t, o, "big", data, 1, 1)
}

func badCRC(t *testing.T, o osd.OSD) {
	old := Data(9000, 9)
	apply(t, o, Put("k", old, 1, 1))
	for name, change := range map[string]func(v *osd.Value){
		"the first CRC":    func(v *osd.Value) { v.CRCs[0]++ },
		"the last CRC":     func(v *osd.Value) { v.CRCs[2] ^= 1 << 31 },
		"two exchanged":    func(v *osd.Value) { v.CRCs[0], v.CRCs[1] = v.CRCs[1], v.CRCs[0] },
		"a byte":           func(v *osd.Value) { v.Data[4096] ^= 1 },
		"the last byte":    func(v *osd.Value) { v.Data[8999] ^= 0x80 },
		"the seed":         func(v *osd.Value) { v.Seed++ },
		"blocks exchanged": func(v *osd.Value) { v.Data = append(bytes.Clone(v.Data[4096:8192]), v.Data...)[:9000] },
	} {
		u := Put("k", Data(9000, 10), 5, 5)
		change(&u.Value)
		want(t, name, o.Apply(ctx, nil, []osd.Update{Put("a", nil, 1, 1), u, Put("z", nil, 1, 1)}), osd.ErrCorrupt)
		holds(t, o, "k", old, 1, 1)
		absent(t, o, "a")
		absent(t, o, "z")
	}
	// A CRC too many or too few is not even a value.
	for _, n := range []int{0, 2, 4} {
		u := Put("k", Data(9000, 10), 5, 5)
		u.Value.CRCs = append(u.Value.CRCs, 0)[:n]
		if err := o.Apply(ctx, nil, []osd.Update{u}); !errors.Is(err, osd.ErrInvalid) && !errors.Is(err, osd.ErrCorrupt) {
			t.Errorf("%d CRCs: got %v", n, err)
		}
		holds(t, o, "k", old, 1, 1)
	}
	// A delete's value is not looked at.
	u := Put("k", []byte("x"), 1, 1)
	u.Delete, u.Value.CRCs = true, nil
	apply(t, o, u)
	absent(t, o, "k")
}

func stat(t *testing.T, o osd.OSD) {
	apply(t, o, Put("b", Data(5000, 1), 1, 7), Put("a", nil, 1, 8))
	infos, err := o.Stat(ctx, [][]byte{[]byte("b"), []byte("none"), []byte("a"), []byte("b")})
	if err != nil || len(infos) != 4 {
		t.Fatal(infos, err)
	}
	for i, w := range []osd.Info{
		{Key: []byte("b"), Found: true, Size: 5000, Epoch: 7},
		{Key: []byte("none")},
		{Key: []byte("a"), Found: true, Epoch: 8},
		{Key: []byte("b"), Found: true, Size: 5000, Epoch: 7},
	} {
		g := infos[i]
		if !bytes.Equal(g.Key, w.Key) || g.Found != w.Found || g.Size != w.Size || g.Epoch != w.Epoch {
			t.Errorf("%d: %+v, want %+v", i, g, w)
		}
	}
	if infos, err := o.Stat(ctx, nil); err != nil || len(infos) != 0 {
		t.Errorf("of nothing: %v, %v", infos, err)
	}
	most := make([][]byte, osd.RangeMax)
	for i := range most {
		most[i] = []byte{'a' + byte(i%3)}
	}
	if infos, err := o.Stat(ctx, most); err != nil || len(infos) != len(most) || !infos[len(most)-1].Found || infos[2].Found {
		t.Errorf("of most: %d, %v", len(infos), err)
	}
	_, err = o.Stat(ctx, [][]byte{nil})
	want(t, "no key", err, osd.ErrInvalid)
}

func keyRange(t *testing.T, o osd.OSD) {
	names := []string{"\x00", "\x00\x00", "a", "a\x00", "aa", "ab", "b", "b\xff", "\x80", "\xff", "\xff\xff"}
	for _, i := range []int{6, 2, 9, 0, 10, 5, 1, 8, 3, 7, 4} {
		apply(t, o, Put(names[i], Data(i*700, 1), 1, uint64(i)))
	}
	for _, c := range []struct {
		first, last []byte
		limit       int
		want        []string
	}{
		{nil, nil, 100, names},
		{nil, nil, osd.RangeMax, names},
		{[]byte{}, nil, 3, names[:3]},
		{nil, nil, 11, names},
		{[]byte("a"), nil, 100, names[2:]},
		{[]byte("a"), []byte("b"), 100, names[2:6]},
		{[]byte("a"), []byte("b"), 2, names[2:4]},
		{[]byte("a"), []byte("a"), 100, nil},
		{[]byte("b"), []byte("a"), 100, nil},
		{[]byte("a\x01"), []byte("aaa"), 100, names[4:5]},
		{[]byte("c"), []byte("d"), 100, nil},
		{nil, []byte{}, 100, nil}, // nothing is before the empty key
		{[]byte("\xff\xff"), nil, 1, names[10:]},
		{[]byte("\xff\xff\x00"), nil, 100, nil},
		{bytes.Repeat([]byte{0xff}, osd.KeyMax), nil, 100, nil},
	} {
		infos, err := o.Range(ctx, c.first, c.last, c.limit)
		if err != nil || len(infos) != len(c.want) {
			t.Errorf("[%q, %q) up to %d: %d keys, %v; want %q", c.first, c.last, c.limit, len(infos), err, c.want)
			continue
		}
		for i, g := range infos {
			if string(g.Key) != c.want[i] || !g.Found || names[g.Epoch] != c.want[i] || int(g.Size) != int(g.Epoch)*700 {
				t.Errorf("[%q, %q): %d is %+v, want %q", c.first, c.last, i, g, c.want[i])
			}
		}
	}
	// More than RangeMax is refused, or cut.
	if infos, err := o.Range(ctx, nil, nil, osd.RangeMax+1); err == nil && len(infos) != len(names) || err != nil && !errors.Is(err, osd.ErrInvalid) {
		t.Errorf("limit of %d: %d, %v", osd.RangeMax+1, len(infos), err)
	}
	apply(t, o, Delete("aa"), Delete("\x00"))
	if infos, err := o.Range(ctx, nil, []byte("b"), 100); err != nil || len(infos) != 4 {
		t.Errorf("deleted keys: %+v, %v", infos, err)
	}
}
