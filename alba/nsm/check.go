package nsm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"openvstorage/alba/nsm/record"
	"openvstorage/alba/nsm/userfn"
)

// Check verifies that every index entry and counter is what the objects say,
// and that no fragment is both live and to be deleted. It reads all keys, and
// keeps an entry for each fragment: it is for tests and for offline checks.
// The error names the first key that is wrong.
func Check(tx userfn.Tx) error {
	c := &checker{
		tx: tx, values: make(map[string][]byte), spaces: make(map[uint64]*Namespace), counts: make(map[string]uint64),
		usage: make(map[string]*Usage), totals: make(map[uint64]*Totals), live: make(map[string]bool), versions: make(map[[2]uint64]bool),
	}
	for _, step := range []func() error{c.objects, c.obsoletes, c.usedIDs, c.changes, c.counters, c.compare} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

type checker struct {
	tx       userfn.Tx
	values   map[string][]byte     // key: what it must hold; nil: anything
	spaces   map[uint64]*Namespace // totals as counted
	counts   map[string]uint64     // by key
	usage    map[string]*Usage     // by key
	totals   map[uint64]*Totals    // by OSD
	live     map[string]bool       // fragments that objects name, as their key to be deleted
	versions map[[2]uint64]bool    // namespace and object version
}

// walk calls fn for each key that begins with base. fn may use the Tx.
func walk(tx userfn.Tx, base []byte, fn func(k, v []byte) error) error {
	last := userfn.PrefixEnd(base)
	for first := base; ; {
		var pairs []userfn.Pair
		tx.Range(first, last, MaxKeys, func(k, v []byte) bool {
			pairs = append(pairs, userfn.Pair{Key: bytes.Clone(k), Value: bytes.Clone(v)})
			return true
		})
		for _, p := range pairs {
			if err := fn(p.Key, p.Value); err != nil {
				return err
			}
		}
		if len(pairs) < MaxKeys {
			return nil
		}
		first = userfn.After(pairs[len(pairs)-1].Key)
	}
}

func (c *checker) objects() error {
	return walk(c.tx, key(tableObject), func(k, v []byte) error {
		if len(k) <= prefixSize+8 {
			return fmt.Errorf("key %q: too short for an object", k)
		}
		ns := binary.BigEndian.Uint64(k[prefixSize:])
		o := &Object{Name: string(k[prefixSize+8:])}
		if err := decode(k, v, &stored{o}); err != nil {
			return err
		}
		if err := o.validate(o.Policy.K); err != nil {
			return fmt.Errorf("key %q: %w", k, err)
		}
		if c.versions[[2]uint64{ns, o.Version}] {
			return fmt.Errorf("key %q: version %d is that of two objects", k, o.Version)
		}
		c.versions[[2]uint64{ns, o.Version}] = true
		return c.count(ns, o, k, v)
	})
}

// count notes what an object puts into the other tables.
func (c *checker) count(ns uint64, o *Object, k, v []byte) error {
	c.values[string(k)] = v
	id := string(idKey(ns, o.ID))
	if _, twice := c.values[id]; twice {
		return fmt.Errorf("key %q: id %x is that of two objects", k, o.ID)
	}
	if err := c.want(id, &idRecord{name: o.Name}); err != nil {
		return err
	}
	if !o.Bucket().Full() {
		c.values[string(bucketKey(ns, o.Bucket(), o.Name))] = empty
	}
	c.counts[string(countKey(ns, o.Bucket()))]++
	t := c.spaces[ns]
	if t == nil {
		t = new(Namespace)
		c.spaces[ns] = t
	}
	t.NextVersion = max(t.NextVersion, o.Version+1)
	t.Objects++
	t.Size += o.Size
	t.Stored += o.Stored()
	for i, chunk := range o.Chunks {
		for j, f := range chunk.Fragments {
			if f.OSD == 0 {
				continue
			}
			if f.Version > o.Revision {
				return fmt.Errorf("key %q: fragment %d of chunk %d has version %d, the object revision %d", k, j, i, f.Version, o.Revision)
			}
			c.live[string(obsoleteKey(f.OSD, FragmentKey{ns, o.ID, uint32(i), uint16(j), f.Version}))] = true
			by := Usage{Fragments: 1, Bytes: uint64(chunk.Length)}
			u := string(usageKey(ns, f.OSD))
			if c.usage[u] == nil {
				c.usage[u] = new(Usage)
			}
			c.usage[u].add(by)
			c.total(f.OSD).Live.add(by)
		}
	}
	return nil
}

func (u *Usage) add(by Usage) {
	u.Fragments += by.Fragments
	u.Bytes += by.Bytes
}

func (c *checker) total(osd uint64) *Totals {
	if c.totals[osd] == nil {
		c.totals[osd] = new(Totals)
	}
	return c.totals[osd]
}

func (c *checker) obsoletes() error {
	return walk(c.tx, key(tableObsolete), func(k, v []byte) error {
		osd, _, err := parseObsoleteKey(k)
		if err != nil {
			return err
		}
		if c.live[string(k)] {
			return fmt.Errorf("key %q: a fragment to be deleted belongs to an object", k)
		}
		var n number
		if err := decode(k, v, &n); err != nil {
			return err
		}
		c.total(osd).Obsolete.add(Usage{Fragments: 1, Bytes: n.v})
		c.values[string(k)] = v
		return nil
	})
}

// usedIDs checks the ids that left. Of a closed epoch they may have been used
// again.
func (c *checker) usedIDs() error {
	return walk(c.tx, key(tableUsedID), func(k, _ []byte) error {
		epoch, id, err := parseUsedIDKey(k)
		if err != nil {
			return err
		}
		ns := binary.BigEndian.Uint64(k[prefixSize:])
		var n Namespace
		switch ok, err := load(c.tx, namespaceKey(ns), &n); {
		case err != nil:
			return err
		case !ok:
			return fmt.Errorf("key %q: there is no such namespace", k)
		}
		c.values[string(k)] = empty
		of := idKey(ns, id)
		var rec idRecord
		if _, err := load(c.tx, of, &rec); err != nil {
			return err
		}
		if rec.name == "" && rec.epoch == epoch {
			return c.want(string(of), &rec)
		}
		if n.Epochs.Minimum <= epoch {
			return fmt.Errorf("key %q: the id left in an epoch that is open, but is that of %q and epoch %d", k, rec.name, rec.epoch)
		}
		return nil
	})
}

// changes demands that every noted change is one that its namespace has counted.
func (c *checker) changes() error {
	return walk(c.tx, key(tableChange), func(k, v []byte) error {
		if len(k) != prefixSize+16 {
			return fmt.Errorf("key %q of a change has %d bytes", k, len(k))
		}
		var n Namespace
		ok, err := load(c.tx, namespaceKey(binary.BigEndian.Uint64(k[prefixSize:])), &n)
		if at := binary.BigEndian.Uint64(k[prefixSize+8:]); err == nil && (!ok || at == 0 || at > n.Changes) {
			err = fmt.Errorf("key %q: change %d, its namespace counts %d", k, at, n.Changes)
		}
		c.values[string(k)] = v
		return err
	})
}

// counters notes what the counters must be, and checks the namespaces.
func (c *checker) counters() error {
	for k, n := range c.counts {
		if err := c.want(k, &number{n}); err != nil {
			return err
		}
	}
	for k, u := range c.usage {
		if err := c.want(k, u); err != nil {
			return err
		}
	}
	for osd, t := range c.totals {
		if err := c.want(string(totalsKey(osd)), t); err != nil {
			return err
		}
		if _, ok := c.tx.Get(osdKey(osd)); !ok {
			return fmt.Errorf("key %q: it has fragments but is not known", osdKey(osd))
		}
	}
	err := walk(c.tx, key(tableNamespace), func(k, v []byte) error {
		var n Namespace
		if err := decode(k, v, &n); err != nil {
			return err
		}
		ns, err := suffix(k, prefixSize)
		if err != nil {
			return err
		}
		counted := c.spaces[ns]
		delete(c.spaces, ns)
		if counted == nil {
			counted = new(Namespace)
		}
		if n.Objects != counted.Objects || n.Size != counted.Size || n.Stored != counted.Stored || n.State.serves() && n.NextVersion < counted.NextVersion {
			return fmt.Errorf("key %q: it has %d objects, %d bytes, %d stored, next version %d; counted are %d, %d, %d, %d", k,
				n.Objects, n.Size, n.Stored, n.NextVersion, counted.Objects, counted.Size, counted.Stored, counted.NextVersion)
		}
		c.values[string(k)] = nil
		return nil
	})
	if err != nil {
		return err
	}
	for ns := range c.spaces {
		return fmt.Errorf("key %q: missing, but it has objects", namespaceKey(ns))
	}
	return nil
}

func (c *checker) want(k string, v record.Record) error {
	raw, err := record.Encode(record.Needs(v), v)
	c.values[k] = raw
	return err
}

// compare goes over all keys: none too many, none wrong, none missing.
func (c *checker) compare() error {
	err := walk(c.tx, []byte(prefix), func(k, v []byte) error {
		if len(k) > len(prefix) && (k[len(prefix)] == tableHost || k[len(prefix)] == tableOSD) {
			return nil // stand alone
		}
		want, ok := c.values[string(k)]
		switch {
		case !ok:
			return fmt.Errorf("key %q: no object accounts for it", k)
		case want != nil && !bytes.Equal(want, v):
			return fmt.Errorf("key %q: it holds %x, the objects say %x", k, v, want)
		}
		delete(c.values, string(k))
		return nil
	})
	if err != nil {
		return err
	}
	for k := range c.values {
		return fmt.Errorf("key %q: missing", k)
	}
	return nil
}
