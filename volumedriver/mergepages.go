package volumedriver

import (
	"context"
	"slices"

	"openvstorage/metadata"
	"openvstorage/volumedriver/catalog"
	"openvstorage/volumedriver/pageobject"
)

// mergePages replaces neighbouring page objects of which less than half lives by fewer
// ones. The pages keep their numbers.
func (gc *garbageCollector) mergePages(ctx context.Context, live *metadata.PageSet) error {
	old := gc.cat.current().Pages
	var kept []catalog.PageObject
	var gone []string
	for i := 0; i < len(old); {
		p := old[i]
		if n := live.Count(p.First, p.End); n > 0 && 2*n >= uint64(p.Pages) {
			kept = append(kept, p)
			i++
			continue
		}
		w := &pageWriter{cat: gc.cat, first: p.First}
		end := p.End
		for ; i < len(old); i++ {
			q := old[i]
			if n := live.Count(q.First, q.End); n > 0 && 2*n >= uint64(q.Pages) {
				break
			}
			if err := gc.copyPages(ctx, w, q, live); err != nil {
				return err
			}
			end = q.End
			gone = append(gone, pageobject.Name(q.Number))
		}
		if err := w.put(ctx, end); err != nil {
			return err
		}
		kept = append(kept, w.objects...)
	}
	if len(gone) == 0 {
		return nil
	}
	err := gc.cat.update(ctx, func(c *catalog.Catalog) error {
		c.Pages = append(slices.Clone(kept), c.Pages[len(old):]...)
		gc.cat.reserveObjects(c, 1)
		return nil
	})
	if err != nil {
		return err
	}
	gc.cat.deleteObjects(ctx, gone)
	return nil
}

// copyPages adds the live pages of a page object to w.
func (gc *garbageCollector) copyPages(ctx context.Context, w *pageWriter, q catalog.PageObject, live *metadata.PageSet) error {
	if live.Count(q.First, q.End) == 0 {
		return nil
	}
	entries, err := readIndex(ctx, gc.namespace(), gc.id, q.Number)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !live.Has(e.Page) {
			continue
		}
		b, err := gc.host.pages.LoadPage(ctx, gc.id, e.Page, nil)
		if err != nil {
			return err
		}
		if err := w.add(ctx, e.Page, b); err != nil {
			return err
		}
	}
	return nil
}
