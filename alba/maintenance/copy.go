package maintenance

import (
	"context"
)

// copies reads the fragments that are to be made again where they are now, if all of them can
// be read: a move takes one read for each, and not k. It returns nil if that is not so, or if
// k reads are fewer.
func (w *rewrite) copies(ctx context.Context) [][]byte {
	if len(w.lost) > int(w.mf.Policy.K) {
		return nil
	}
	shards := make([][]byte, w.mf.Policy.Width())
	for _, l := range w.lost {
		if !l.readable {
			return nil
		}
		data, err := w.fetch(ctx, w.chunk, l.index)
		if err != nil {
			return nil
		}
		shards[l.index] = data
	}
	return shards
}
