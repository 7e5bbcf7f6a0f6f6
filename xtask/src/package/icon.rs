//! The icon of the program: a barge on a canal, towed from the right, in the sizes that Windows shows. Drawn here, so that no picture
//! of unknown origin lies in the repository. The form is that of icon files (Microsoft, "Icons", and BITMAPINFOHEADER).

/// Width and height, in pixels.
const SIZES: [u8; 4] = [16, 32, 48, 64];
/// Points of the drawing, to which every size is scaled.
const GRID: f32 = 64.0;
/// How many samples of a pixel are taken along each axis, so that edges are smooth.
const SAMPLES: u32 = 4;

/// Blue, green, red.
type Colour = [u8; 3];
const SKY: Colour = [0x9c, 0x5a, 0x1f];
const WATER: Colour = [0xd8, 0xa9, 0x5b];
const HULL: Colour = [0x2b, 0x32, 0x3a];
const CARGO: Colour = [0x3b, 0xb4, 0xf2];
const LINE: Colour = [0xff, 0xff, 0xff];

/// The colour of a point; `None` outside of the rounded square.
fn colour(x: f32, y: f32) -> Option<Colour> {
    let (radius, edge) = (12.0_f32, 1.0_f32);
    let beyond = |at: f32| (edge + radius - at).max(at - (GRID - edge - radius)).max(0.0);
    if beyond(x).hypot(beyond(y)) > radius {
        return None;
    }
    // The line that tows, from the bow up to the path.
    let rope = 40.0 - (x - 48.0) * 1.6;
    if x >= 46.0 && (y - rope).abs() < 2.4 {
        return Some(LINE);
    }
    let boxes = (27.0..37.5).contains(&y) && ((12.0..23.0).contains(&x) || (25.0..36.0).contains(&x));
    if boxes {
        return Some(CARGO);
    }
    // The hull is narrower below.
    let inset = (y - 39.0) * 0.6;
    if (39.0..48.0).contains(&y) && (8.0 + inset..50.0 - inset).contains(&x) {
        return Some(HULL);
    }
    Some(if y >= 45.0 { WATER } else { SKY })
}

/// The file.
pub(super) fn icon() -> Vec<u8> {
    let pictures = SIZES.map(picture);
    let mut file = Vec::new();
    for number in [0_u16, 1, SIZES.len() as u16] {
        file.extend(number.to_le_bytes());
    }
    let mut offset = 6 + 16 * SIZES.len();
    for (size, picture) in SIZES.iter().zip(&pictures) {
        file.extend([*size, *size, 0, 0]);
        for number in [1_u16, 32] {
            file.extend(number.to_le_bytes());
        }
        for number in [picture.len() as u32, offset as u32] {
            file.extend(number.to_le_bytes());
        }
        offset += picture.len();
    }
    file.extend(pictures.concat());
    file
}

/// One size: a header, the pixels from the lowest row up, and a mask that says nothing because every pixel has its own opacity.
fn picture(size: u8) -> Vec<u8> {
    let side = u32::from(size);
    let mut bytes = Vec::new();
    for number in [40, side, side * 2] {
        bytes.extend(number.to_le_bytes());
    }
    for number in [1_u16, 32] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([0; 24]);
    for row in (0..side).rev() {
        for column in 0..side {
            bytes.extend(pixel(column, row, side));
        }
    }
    let mask_row = side.div_ceil(32) * 4;
    bytes.extend(vec![0; (mask_row * side) as usize]);
    bytes
}

/// Blue, green, red and opacity.
fn pixel(column: u32, row: u32, side: u32) -> [u8; 4] {
    let (mut sum, mut seen) = ([0_u32; 3], 0_u32);
    let at = |pixel: u32, sample: u32| (pixel as f32 + (sample as f32 + 0.5) / SAMPLES as f32) * GRID / side as f32;
    for sample in 0..SAMPLES * SAMPLES {
        if let Some(colour) = colour(at(column, sample % SAMPLES), at(row, sample / SAMPLES)) {
            seen += 1;
            for (sum, part) in sum.iter_mut().zip(colour) {
                *sum += u32::from(part);
            }
        }
    }
    let [blue, green, red] = sum.map(|sum| (sum / seen.max(1)) as u8);
    [blue, green, red, (seen * 255 / (SAMPLES * SAMPLES)) as u8]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_lies_where_the_directory_says() {
        let file = icon();
        assert_eq!(&file[..6], [0, 0, 1, 0, 4, 0]);
        let mut end = 6 + 16 * SIZES.len();
        for (entry, size) in file[6..].chunks(16).zip(SIZES) {
            let number = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().unwrap()) as usize;
            assert_eq!((entry[0], number(12)), (size, end));
            assert_eq!(file[end], 40, "a header of 40 bytes");
            end += number(8);
        }
        assert_eq!(end, file.len());
    }

    #[test]
    fn corners_are_open_and_the_middle_is_not() {
        assert_eq!(pixel(0, 0, 64)[3], 0);
        assert_eq!(pixel(32, 32, 64)[3], 255);
        assert!(colour(15.0, 30.0) == Some(CARGO) && colour(30.0, 43.0) == Some(HULL) && colour(30.0, 55.0) == Some(WATER));
    }
}
