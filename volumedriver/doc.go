// Package volumedriver is a vDisk's life: write, read, flush, trim, snapshot,
// clone, rollback, restart and upload, for the many volumes of one Host.
package volumedriver
