package volumedriver

import (
	"context"
	"errors"
	"fmt"

	"openvstorage/tlog"
	"openvstorage/volumedriver/catalog"
)

// agree has the log take for stored what the catalog has, before a group is chosen. A put
// of the catalog that was not answered may have taken effect. Its TLogs are stored then. To
// store them again, in a group with others, would replace their SCOs by only what that
// group needs of them, while the catalog names them as they were. Whoever calls it has
// settled: nothing is in doubt.
func (st *storer) agree(ctx context.Context) error {
	g, seq := &group{}, st.cat.storedSeq()
	for _, t := range st.buf.Work().TLogs {
		if t.LastSeq > seq {
			break
		}
		g.tlogs = append(g.tlogs, t)
		st.checkpoints.addStored(t.Size)
	}
	if len(g.tlogs) == 0 {
		return nil
	}
	return st.groupStored(ctx, g)
}

// storeGroup puts the TLogs of a group whose SCOs are in the backend, then the catalog
// that names all of them at once (O3). Only then may the SCOs leave the buffer (O5).
func (st *storer) storeGroup(ctx context.Context, g *group) error {
	var stored []catalog.TLog
	for _, t := range g.tlogs {
		if t.FirstSeq == 0 {
			continue
		}
		data, err := t.Object(st.buf)
		if err != nil {
			if errors.Is(err, tlog.ErrCorrupt) {
				st.halt(err)
			}
			return err
		}
		if err := st.putObject(ctx, t.ID.Name(), data); err != nil {
			return err
		}
		st.count.uploaded.Add(uint64(len(data)))
		stored = append(stored, catalog.TLog{Number: uint64(t.ID), FirstSeq: t.FirstSeq, LastSeq: t.LastSeq, Size: int64(len(data))})
	}
	scos, tlogs := st.buf.Numbers()
	err := st.cat.update(ctx, func(c *catalog.Catalog) error {
		for _, t := range stored {
			if t.FirstSeq != c.StoredSeq+1 {
				return &gapError{tlog.ID(t.Number), t.FirstSeq, c.StoredSeq}
			}
			c.TLogs = append(c.TLogs, t)
			c.StoredSeq = t.LastSeq
		}
		c.Size = st.size.Load()
		st.tree.fill(c)
		reserveNumbers(c, scos, tlogs)
		return nil
	})
	if gap := (*gapError)(nil); errors.As(err, &gap) {
		st.halt(err)
	}
	if err != nil {
		return err
	}
	for _, t := range stored {
		st.checkpoints.addStored(t.Size)
	}
	return st.groupStored(ctx, g)
}

// groupStored tells the log what the catalog names now, so that its files may go, and does
// what follows: a checkpoint, and collection.
func (st *storer) groupStored(ctx context.Context, g *group) error {
	st.buf.SetLimits(st.cat.reserved())
	st.buf.Stored(g.last(), st.narrowOf(ctx, g))
	st.checkpoints.wantIfMany()
	if err := st.checkpoints.commit(ctx); err != nil {
		return err
	}
	st.gc.again()
	st.announce(nil)
	return st.gc.collect(ctx) // under load there is always more to upload
}

// gapError says that a TLog does not begin where the catalog ends. The catalog must not
// name it: a restart would believe that what lies between is stored, too (O10).
type gapError struct {
	tlog          tlog.ID
	first, stored uint64
}

func (e *gapError) Error() string {
	return fmt.Sprintf("%s begins with seq %d, and the catalog has all up to %d: a restart makes TLogs of all that the local files hold", e.tlog.Name(), e.first, e.stored)
}
