# Choose a slot, count its try down, boot it: the same script on every board that has U-Boot.  It lies on the first
# partition, which no update touches.  Beside it, boot.env says what differs between boards (console=...); in a slot,
# slot.env may say what differs between versions (kernel_args=...).
#
#   mkimage -A arm64 -T script -C none -d boot.cmd boot.scr
#
# The state is BOOT_ORDER, BOOT_A_LEFT and BOOT_B_LEFT, as RAUC has them, in U-Boot's format with a checksum, on the
# partition bootstate: at its start, where fw_setenv writes too, and 32 KiB behind.  The second copy is written first,
# so a power cut tears one of them at most.  All numbers are hexadecimal.

setenv console ttyAMA0,115200
if load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} boot.env; then env import -t ${ramdisk_addr_r} ${filesize} console; fi

${devtype} dev ${devnum}
part start ${devtype} ${devnum} bootstate state_lba
setexpr copy_lba ${state_lba} + 40

setenv BOOT_ORDER
setenv BOOT_A_LEFT
setenv BOOT_B_LEFT
setenv is_read 0
for lba in ${state_lba} ${copy_lba}; do
  if test "${is_read}" = "0"; then
    if ${devtype} read ${ramdisk_addr_r} ${lba} 20; then
      if env import -c ${ramdisk_addr_r} 4000 BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; then setenv is_read 1; fi
    fi
  fi
done
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

# On a Raspberry Pi the firmware has loaded the device tree; elsewhere U-Boot has it from the machine.  Debian's kernel
# takes more room there than U-Boot leaves below its place for an initrd: booti refuses to start it.
if test "${board}" = "rpi"; then setenv fdt ${fdt_addr}; setenv ramdisk_addr_r 6000000; else setenv fdt ${fdtcontroladdr}; fi

setenv save 'env export -c -s 4000 ${ramdisk_addr_r} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; ${devtype} write ${ramdisk_addr_r} ${copy_lba} 20; ${devtype} write ${ramdisk_addr_r} ${state_lba} 20'
setenv read_args 'setenv kernel_args quiet; if load ${devtype} ${devnum}:${bootp} ${ramdisk_addr_r} slot.env; then env import -t ${ramdisk_addr_r} ${filesize} kernel_args; fi; setenv bootargs "root=PARTLABEL=system_${label} rootfstype=erofs ro rootwait panic=10 systemd.gpt_auto=no rauc.slot=${slot} console=${console} ${kernel_args}"'
setenv boot_slot 'if part number ${devtype} ${devnum} boot_${label} bootp; then run read_args; load ${devtype} ${devnum}:${bootp} ${kernel_addr_r} vmlinuz && load ${devtype} ${devnum}:${bootp} ${ramdisk_addr_r} initrd.img && booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdt}; fi'

# U-Boot ends a loop early when something in it sets an environment variable of the loop variable's name.
for each in ${BOOT_ORDER}; do
  setenv left 0
  if test "${each}" = "A"; then setenv left "${BOOT_A_LEFT}"; setenv label a; fi
  if test "${each}" = "B"; then setenv left "${BOOT_B_LEFT}"; setenv label b; fi
  if test "${left}" -gt 3; then setenv left 3; fi
  if test "${left}" -gt 0; then
    setexpr left ${left} - 1
    setenv slot ${each}
    setenv BOOT_${slot}_LEFT ${left}
    run save
    echo "conflux: slot ${slot}, ${left} tries left after this one"
    run boot_slot
    # What cannot even be loaded needs no other try.
    echo "conflux: slot ${slot} does not load"
    setenv BOOT_${slot}_LEFT 0
    run save
  fi
done

echo "conflux: no slot is left to try: all begin anew"
setenv BOOT_ORDER "A B"
setenv BOOT_A_LEFT 3
setenv BOOT_B_LEFT 3
run save
sleep 5
reset
