package pebblefs

import "github.com/cockroachdb/pebble/v2"

// Format is the format of every Pebble store that a release of ours makes, and the
// highest to which it brings one. It is named and not "the newest": a newer Pebble
// would else bring stores, with its first start, to where the release before
// cannot open them, for nothing that is asked for. Whoever raises it says so in
// docs/formats.md, and has the record of the data directory refuse the releases
// before (internal/datadir).
const Format = pebble.FormatValueSeparation
