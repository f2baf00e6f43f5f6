package pebblefs

import "github.com/cockroachdb/pebble/v2"

// Format is the format of every new Pebble store, and the highest that an older store
// is upgraded to. It is a number and not "the newest": otherwise the first start with a
// newer Pebble would upgrade stores so that the release before could not open them.
// Whoever raises it says so in docs/formats.md, and makes the record of the data
// directory refuse the releases before (internal/datadir).
const Format = pebble.FormatValueSeparation
