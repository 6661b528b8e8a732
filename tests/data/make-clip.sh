#!/usr/bin/env bash
# Makes clip.flv anew. Run it only to change the clip: the file that is checked in is the one that counts, for
# another encoder gives other bytes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

# A test picture with a counter and a clock; a tone that rises in one ear and falls in the other.
ffmpeg -nostdin -v error -y \
    -f lavfi -i 'testsrc2=size=640x360:rate=30:duration=5' \
    -f lavfi -i "aevalsrc='0.2*sin(2*PI*(220*t+66*t*t))|0.2*sin(2*PI*(880*t-66*t*t))':s=48000:d=5" \
    -c:v libx264 -profile:v high -preset slow -threads 1 -pix_fmt yuv420p -b:v 900k -maxrate 1200k -bufsize 1200k \
    -g 30 -keyint_min 30 -sc_threshold 0 -bf 2 -x264-params 'b-adapt=0:open-gop=0' \
    -c:a aac -profile:a aac_low -b:a 128k \
    -map_metadata -1 -fflags +bitexact -flags +bitexact \
    -f flv clip.flv
