// Package volumedriver implements the life of vDisks: write, read, flush, trim, snapshot,
// clone, rollback, restart and upload. A Host holds the many volumes of one data
// directory.
package volumedriver
