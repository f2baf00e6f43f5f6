package osdtest

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"openvstorage/alba/osd"
)

// together runs fn in n goroutines and waits for all.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}

// oneWinner: of many that assert the same thing and change it, one succeeds.
func oneWinner(t *testing.T, o osd.OSD) {
	for round := range 20 {
		key := fmt.Sprint("k", round)
		won := make([]bool, 8)
		together(len(won), func(i int) {
			a := osd.Assert{Kind: osd.Absent, Key: []byte(key)}
			err := o.Apply(ctx, []osd.Assert{a}, []osd.Update{Put(key, []byte{byte(i)}, 1, uint64(i))})
			if err != nil && !errors.Is(err, osd.ErrAssert) {
				t.Error(err)
			}
			won[i] = err == nil
		})
		winner := slices.Index(won, true)
		if winner < 0 || slices.Contains(won[winner+1:], true) {
			t.Fatalf("winners: %v", won)
		}
		holds(t, o, key, []byte{byte(winner)}, 1, uint64(winner))
	}
	// A counter that is changed by comparison loses no step.
	apply(t, o, Put("n", []byte{0}, 1, 1))
	together(4, func(int) {
		for done := 0; done < 10; {
			p, _, err := read(o, "n", 0, 1)
			if err != nil {
				t.Error(err)
				return
			}
			a := osd.Assert{Kind: osd.Equals, Key: []byte("n"), Value: p}
			err = o.Apply(ctx, []osd.Assert{a}, []osd.Update{Put("n", []byte{p[0] + 1}, 1, 1)})
			if err == nil {
				done++
			} else if !errors.Is(err, osd.ErrAssert) {
				t.Error(err)
				return
			}
		}
	})
	holds(t, o, "n", []byte{40}, 1, 1)
}

// wholeValues: a read gives the bytes of one version of a value, with its
// checksums, while others overwrite it.
func wholeValues(t *testing.T, o osd.OSD) {
	const n, writers, readers, rounds = 3*osd.BlockSize + 50, 2, 3, 60
	versions := make([][]byte, writers*rounds)
	for i := range versions {
		versions[i] = bytes.Repeat([]byte{byte(i + 1)}, n)
	}
	apply(t, o, Put("k", versions[0], 1, 0))
	together(writers+readers, func(i int) {
		for round := range rounds {
			if i < writers {
				v := i*rounds + round
				if err := o.Apply(ctx, nil, []osd.Update{Put("k", versions[v], 1, uint64(v))}); err != nil {
					t.Error(err)
					return
				}
				continue
			}
			p, crcs, err := read(o, "k", 0, n)
			if err != nil || !bytes.Equal(p, versions[p[0]-1]) || !slices.Equal(crcs, osd.AppendCRCs(nil, 1, 0, p)) {
				t.Errorf("a read gave parts of versions, or checksums of another: %v", err)
				return
			}
		}
	})
}

// wholeApplies: what one Apply changes is seen at once, in one Stat and in one
// Range.
func wholeApplies(t *testing.T, o osd.OSD) {
	const rounds = 300
	var keys [][]byte
	for i := range 8 {
		keys = append(keys, []byte{'a' + byte(i)})
	}
	set := func(epoch uint64) []osd.Update {
		var updates []osd.Update
		for _, k := range keys {
			updates = append(updates, Put(string(k), Data(100, epoch), 1, epoch))
		}
		return updates
	}
	apply(t, o, set(0)...)
	together(4, func(i int) {
		for round := range rounds {
			var infos []osd.Info
			var err error
			switch i {
			case 0, 1:
				err = o.Apply(ctx, nil, set(uint64(i*rounds+round)))
			case 2:
				infos, err = o.Stat(ctx, keys)
			case 3:
				infos, err = o.Range(ctx, nil, nil, 10)
			}
			if err != nil {
				t.Error(err)
				return
			}
			for _, info := range infos {
				if len(infos) != len(keys) || info.Epoch != infos[0].Epoch {
					t.Errorf("half of an Apply: %+v", infos)
					return
				}
			}
		}
	})
}

// model: random calls, compared with a map, from several goroutines on keys of
// their own.
func model(t *testing.T, o osd.OSD) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	together(4, func(i int) {
		m := &modelRun{t: t, o: o, rng: rand.New(rand.NewPCG(seed, uint64(i))), prefix: string([]byte{'m', byte(i)}), values: make(map[string]modelValue)}
		for range 150 {
			if !m.step() {
				return
			}
		}
	})
}

type modelRun struct {
	t      *testing.T
	o      osd.OSD
	rng    *rand.Rand
	prefix string
	values map[string]modelValue
}

type modelValue struct {
	data        []byte
	seed, epoch uint64
}

func (m *modelRun) key() string { return m.prefix + fmt.Sprint(m.rng.IntN(20)) }

// step makes one call; it reports whether the result was right.
func (m *modelRun) step() bool {
	switch m.rng.IntN(4) {
	case 0, 1:
		return m.apply()
	case 2:
		return m.read()
	default:
		return m.list()
	}
}

func (m *modelRun) apply() bool {
	next := make(map[string]*modelValue)
	var updates []osd.Update
	for range 1 + m.rng.IntN(5) {
		key := m.key()
		if m.rng.IntN(3) == 0 {
			updates, next[key] = append(updates, Delete(key)), nil
			continue
		}
		v := modelValue{Data(m.rng.IntN(20000), m.rng.Uint64()), m.rng.Uint64(), m.rng.Uint64()}
		if m.rng.IntN(2) == 0 {
			v.data = v.data[:len(v.data)/osd.BlockSize*osd.BlockSize]
		}
		updates, next[key] = append(updates, Put(key, v.data, v.seed, v.epoch)), &v
	}
	a := osd.Assert{Kind: osd.AssertKind(1 + m.rng.IntN(2)), Key: []byte(m.key())}
	_, there := m.values[string(a.Key)]
	err := m.o.Apply(ctx, []osd.Assert{a}, updates)
	if there != (a.Kind == osd.Exists) {
		if !errors.Is(err, osd.ErrAssert) {
			m.t.Errorf("assert %d of %q: got %v", a.Kind, a.Key, err)
		}
		return errors.Is(err, osd.ErrAssert)
	}
	if err != nil {
		m.t.Error(err)
		return false
	}
	for k, v := range next {
		if v == nil {
			delete(m.values, k)
		} else {
			m.values[k] = *v
		}
	}
	return true
}

func (m *modelRun) read() bool {
	key := m.key()
	v, there := m.values[key]
	off := m.rng.IntN(len(v.data)/osd.BlockSize+1) * osd.BlockSize
	end := len(v.data)
	if blocks := (end - off) / osd.BlockSize; blocks > 0 && m.rng.IntN(2) == 0 {
		end = off + m.rng.IntN(blocks+1)*osd.BlockSize
	}
	p, crcs, err := read(m.o, key, off, end-off)
	switch {
	case !there && errors.Is(err, osd.ErrNotFound):
		return true
	case there && err == nil && bytes.Equal(p, v.data[off:end]) && slices.Equal(crcs, osd.AppendCRCs(nil, v.seed, uint32(off/osd.BlockSize), p)):
		return true
	}
	m.t.Errorf("[%d, %d) of %q, which is there: %v: %v", off, end, key, there, err)
	return false
}

func (m *modelRun) list() bool {
	first, last := m.key(), m.key()
	var keys []string
	for k := range m.values {
		if k >= first && k < last {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	limit := 1 + m.rng.IntN(20)
	keys = keys[:min(len(keys), limit)]
	infos, err := m.o.Range(ctx, []byte(first), []byte(last), limit)
	ok := err == nil && len(infos) == len(keys)
	for i := 0; ok && i < len(keys); i++ {
		v := m.values[keys[i]]
		ok = string(infos[i].Key) == keys[i] && int(infos[i].Size) == len(v.data) && infos[i].Epoch == v.epoch
	}
	if !ok {
		m.t.Errorf("[%q, %q) up to %d: %+v, %v; want %q", first, last, limit, infos, err, keys)
	}
	return ok
}
