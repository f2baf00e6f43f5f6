package balance_test

import (
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"

	"openvstorage/alba/maintenance/balance"
	"openvstorage/alba/policy"
)

// model computes the strain of everything from the beginning, in exact numbers.
type model struct {
	disks  []balance.Disk
	chunks []balance.Chunk
}

func (m *model) disk(osd uint64) *balance.Disk {
	for i := range m.disks {
		if m.disks[i].OSD == osd {
			return &m.disks[i]
		}
	}
	return nil
}

func (m *model) spread() (overX, overM, uneven int) {
	for _, k := range m.chunks {
		nodes, zones := map[string]int{}, map[string]int{}
		for _, osd := range k.On {
			nodes[m.disk(osd).Node]++
			zones[m.disk(osd).Zone]++
		}
		for _, n := range nodes {
			overX += max(0, n-int(k.Policy.X))
			uneven += n * n
		}
		for _, n := range zones {
			overM += max(0, n-int(k.Policy.M))
		}
	}
	return overX, overM, uneven
}

func (m *model) fill() *big.Rat {
	sum := new(big.Rat)
	for _, d := range m.disks {
		u := new(big.Int).SetUint64(d.Used)
		sum.Add(sum, new(big.Rat).SetFrac(u.Mul(u, u), new(big.Int).SetUint64(d.Capacity)))
	}
	return sum
}

// random makes a cluster with chunks that are placed anyhow.
func random(r *rand.Rand) *model {
	m := new(model)
	n := 4 + r.IntN(12)
	nodes := 1 + r.IntN(5)
	for i := range n {
		node := r.IntN(nodes)
		m.disks = append(m.disks, balance.Disk{
			OSD: uint64(i + 1), Node: fmt.Sprint("n", node), Zone: fmt.Sprint("z", node%(1+r.IntN(3))),
			Capacity: uint64(1+r.IntN(4)) << 20, Failing: r.IntN(10) == 0,
		})
	}
	// A node is in one zone.
	zone := map[string]string{}
	for i := range m.disks {
		d := &m.disks[i]
		if z, ok := zone[d.Node]; ok {
			d.Zone = z
		}
		zone[d.Node] = d.Zone
	}
	for range r.IntN(60) {
		p := policy.Policy{K: uint8(1 + r.IntN(3)), M: uint8(r.IntN(3)), X: uint8(1 + r.IntN(3))}
		p.C = p.K
		if p.Width() > n {
			continue
		}
		k := balance.Chunk{Policy: p, Bytes: uint64(1+r.IntN(16)) << 10}
		for _, i := range r.Perm(n)[:p.Width()] {
			k.On = append(k.On, m.disks[i].OSD)
			m.disks[i].Used += k.Bytes
		}
		m.chunks = append(m.chunks, k)
	}
	return m
}

// Whatever the cluster, every move lowers the one strain: the spread, or the fill with no
// worse spread. Moving ends, and no fragment is moved again and again. The strain is
// computed by a model.
func TestEveryMoveLowersTheStrain(t *testing.T) {
	all := 0
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 11))
		m := random(r)
		c := balance.New(slices.Clone(m.disks), 0.05)
		moves := 0
		for again := true; again; {
			again = false
			for _, j := range r.Perm(len(m.chunks)) {
				k := &m.chunks[j]
				x0, m0, u0 := m.spread()
				f0 := m.fill()
				move, ok := c.Best(k)
				if !ok {
					continue
				}
				from, to := k.On[move.Fragment], move.To
				if slices.Contains(k.On, to) || !m.disk(to).Usable() {
					t.Fatalf("seed %d: a move to disk %d, which must take none", seed, to)
				}
				k.On[move.Fragment] = to
				m.disk(from).Used -= k.Bytes
				m.disk(to).Used += k.Bytes
				c.Moved(from, to, k.Bytes)
				x1, m1, u1 := m.spread()
				was, is := [3]int{x0, m0, u0}, [3]int{x1, m1, u1}
				switch d := slices.Compare(is[:], was[:]); {
				case d > 0:
					t.Fatalf("seed %d: the spread is worse: %v after %v", seed, is, was)
				case d == 0 && m.fill().Cmp(f0) >= 0:
					t.Fatalf("seed %d: neither spread nor fill is better", seed)
				}
				if x1 > x0 {
					t.Fatalf("seed %d: more than x on a node", seed)
				}
				if moves++; moves > 10_000 {
					t.Fatalf("seed %d: it does not end", seed)
				}
				again = true
			}
		}
		all += moves
	}
	if all < 1000 {
		t.Errorf("%d moves prove little", all)
	}
}

// A new disk is filled up to the gap, and no further.
func TestNewDisk(t *testing.T) {
	var disks []balance.Disk
	for i := range uint64(5) {
		disks = append(disks, balance.Disk{OSD: i + 1, Node: "n", Capacity: 1000 << 10})
	}
	var chunks []balance.Chunk
	for i := range 200 {
		k := balance.Chunk{Policy: policy.Policy{K: 2, M: 1, C: 2, X: 9}, Bytes: 4 << 10}
		for j := range 3 {
			on := (i + j) % 4
			k.On = append(k.On, disks[on].OSD)
			disks[on].Used += k.Bytes
		}
		chunks = append(chunks, k)
	}
	c := balance.New(slices.Clone(disks), 0.1)
	moved := 0
	for again := true; again; {
		again = false
		for i := range chunks {
			if m, ok := c.Best(&chunks[i]); ok {
				c.Moved(chunks[i].On[m.Fragment], m.To, chunks[i].Bytes)
				chunks[i].On[m.Fragment] = m.To
				again = true
				moved++
			}
		}
	}
	if _, more := c.Fullest(); more {
		t.Error("the disks are apart still")
	}
	if moved < 80 || moved > 130 {
		t.Errorf("%d moves; an even fill takes 120", moved)
	}
}

// What cannot be told is left alone: a chunk with a fragment on a disk that is not there.
func TestUnknownDisk(t *testing.T) {
	c := balance.New([]balance.Disk{{OSD: 1, Capacity: 100, Used: 90}, {OSD: 2, Capacity: 100}}, 0.1)
	if _, ok := c.Best(&balance.Chunk{Policy: policy.Policy{K: 1, M: 1, C: 1, X: 2}, On: []uint64{1, 7}, Bytes: 1}); ok {
		t.Error("a narrow chunk is moved")
	}
	if osd, ok := c.Fullest(); !ok || osd != 1 {
		t.Error(osd, ok)
	}
}
